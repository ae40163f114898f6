"""Passwords of logins: made by us, kept by a store, never printed.

A store is a small interface. What keeps them elsewhere (a vault, a cloud) implements the same four
methods and inherits the tests of `SecretStoreContract`.
"""

from __future__ import annotations

import json
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from datops_assets.errors import TerminalError

_PASSWORD_BYTES = 32


class SecretStoreError(TerminalError):
    """A password cannot be read, kept or made.

    Next: what the message says about the file or the variable; `datops database rotate` makes a new
    password.
    """


@dataclass(frozen=True)
class Secret:
    """What a program needs to log in. Printing it shows no password."""

    user: str
    password: str = field(repr=False)
    made_at: datetime
    previous_until: datetime | None = None
    """Until when the other role of the pair may log in; None: it never had its turn."""


class SecretStore(ABC):
    """Where the passwords of the logins of team databases are kept."""

    @abstractmethod
    def read(self, database: str, login: str) -> Secret | None:
        """The secret of a login; None where there is none. Raises SecretStoreError."""

    @abstractmethod
    def write(self, database: str, login: str, secret: Secret) -> None:
        """Keep a secret in place of the one before. Whole or not at all. Raises SecretStoreError."""

    @abstractmethod
    def forget(self, database: str, login: str) -> None:
        """Keep it no longer; nothing happens where there is none."""

    @abstractmethod
    def where(self, database: str, login: str) -> str:
        """Say to a person where the secret is."""


class FileStore(SecretStore):
    """One JSON file a login, readable by its owner only, in folders nobody else may enter."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, database: str, login: str) -> Secret | None:
        """The secret of a login; None where there is none."""
        file = self._file(database, login)
        try:
            open_to_others = file.stat().st_mode & 0o077
            text = file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SecretStoreError(
                f"{file} cannot be read ({error.strerror}); give it back its owner"
            ) from None
        if open_to_others:
            raise SecretStoreError(f"{file} can be read by others; run: chmod 600 {file}, then rotate it")
        try:
            found = json.loads(text)
            times = {name: _time(found.get(name)) for name in ("made_at", "previous_until")}
            made_at = times["made_at"] or datetime.now(UTC)
            return Secret(str(found["user"]), str(found["password"]), made_at, times["previous_until"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise SecretStoreError(
                f"{file} is no secret of datops; remove it, then: datops database apply"
            ) from None

    def write(self, database: str, login: str, secret: Secret) -> None:
        """Keep a secret: a new file, flushed, in the place of the old one."""
        file = self._file(database, login)
        try:
            for folder in (self.folder, file.parent):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as new:
                json.dump(asdict(secret), new, default=str, indent=2)
                new.flush()
                os.fsync(new.fileno())
            fresh.replace(file)
        except OSError as error:
            raise SecretStoreError(
                f"{file} cannot be written ({error.strerror}); nothing was changed"
            ) from None

    def forget(self, database: str, login: str) -> None:
        """Remove the file."""
        self._file(database, login).unlink(missing_ok=True)

    def where(self, database: str, login: str) -> str:
        """Name the file."""
        return str(self._file(database, login))

    def _file(self, database: str, login: str) -> Path:
        return self.folder / database / f"{login}.json"


class VariableStore(SecretStore):
    """Passwords that somebody else makes and puts into variables; only the first role of a pair is used."""

    def __init__(
        self, variables: Mapping[tuple[str, str], tuple[str, str]], read: Callable[[str], str | None]
    ) -> None:
        self._variables = variables
        """(database, login): (variable, role)."""
        self._read = read

    def read(self, database: str, login: str) -> Secret | None:
        """What the variable holds. Raises SecretStoreError: it is not set, or is no password."""
        variable, user = self._variables[database, login]
        value = self._read(variable)
        if not value:
            raise SecretStoreError(f"variable {variable} is not set; it holds the password of {user}")
        if not value.isascii() or len(value) < 16:
            raise SecretStoreError(
                f"variable {variable} holds no password: expected 16 characters or more of ASCII"
            )
        return Secret(user, value, datetime.now(UTC))

    def write(self, database: str, login: str, secret: Secret) -> None:
        """Refused: whoever fills the variable makes the password."""
        variable = self._variables[database, login][0]
        raise SecretStoreError(f"the password is in {variable}; change it there, then: datops database apply")

    def forget(self, database: str, login: str) -> None:
        """Nothing of ours to forget."""

    def where(self, database: str, login: str) -> str:
        """Name the variable."""
        return f"variable {self._variables[database, login][0]}"


class StoreOfEach(SecretStore):
    """Asks for each login the store that keeps its secret."""

    def __init__(self, default: SecretStore, others: Mapping[tuple[str, str], SecretStore]) -> None:
        self._default, self._others = default, others

    def read(self, database: str, login: str) -> Secret | None:
        """As the login's store."""
        return self._of(database, login).read(database, login)

    def write(self, database: str, login: str, secret: Secret) -> None:
        """As the login's store."""
        self._of(database, login).write(database, login, secret)

    def forget(self, database: str, login: str) -> None:
        """As the login's store."""
        self._of(database, login).forget(database, login)

    def where(self, database: str, login: str) -> str:
        """As the login's store."""
        return self._of(database, login).where(database, login)

    def _of(self, database: str, login: str) -> SecretStore:
        return self._others.get((database, login), self._default)


def make_secret(user: str, now: datetime) -> Secret:
    """A fresh password of 256 random bits."""
    return Secret(user, secrets.token_urlsafe(_PASSWORD_BYTES), now)


def next_secret(user: str, now: datetime, previous_until: datetime) -> Secret:
    """A fresh password for the other role of the pair; the one before may be used for a while."""
    return replace(make_secret(user, now), previous_until=previous_until)


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text and text != "None" else None
