"""The manifest: what a backup is, every artefact with its hash, and what the database held.

One canonical JSON text, the same beside the artefacts and in the catalogue: either gives the other back.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any, Literal

from datops_assets.backup.artefacts import Artefact, Member
from datops_assets.backup.encryption import Keys
from datops_assets.errors import BackupDamagedError

FORMAT = 2
"""2: content hashes by value, see facts.py."""
Kind = Literal["logical", "full", "incremental"]
_ULID = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")


@dataclass(frozen=True)
class Manifest:
    """One backup that was finished."""

    backup_id: str
    name: str
    kind: Kind
    database: str
    """host:port/database that it was taken of; no user, no password."""
    started_at: datetime
    snapshot_at: datetime
    """What was committed by then is in it."""
    finished_at: datetime
    system_identifier: int | None
    timeline: int | None
    start_lsn: str | None
    end_lsn: str | None
    server_version: int
    tools: dict[str, str]
    parent: str | None
    key_id: str | None
    key_name: str | None
    who: str
    why: str
    artefacts: tuple[Artefact, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    """What the database held, see facts.py."""

    @property
    def folder(self) -> str:
        """Where it stands below a destination's root."""
        return folder_of(self.name, self.backup_id)

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.finished_at - self.started_at).total_seconds()

    @property
    def stored_bytes(self) -> int:
        """Bytes at each destination, without the manifest."""
        return sum(artefact.bytes for artefact in self.artefacts)

    @property
    def plain_bytes(self) -> int:
        """Bytes of all files, unpacked."""
        return sum(member.bytes for artefact in self.artefacts for member in artefact.members)

    def place(self, artefact: Artefact) -> str:
        """Where an artefact stands below a destination's root."""
        return f"{self.folder}/{artefact.name}"


def folder_of(name: str, backup_id: str) -> str:
    """Where a backup stands below a destination's root."""
    return f"{name}/{backup_id}"


def whole_of(text: str) -> str:
    """The hash of the whole that a manifest's text carries."""
    return str(json.loads(text)["whole"])


def write_manifest(manifest: Manifest, keys: Keys) -> str:
    """The manifest as text, with the hash of the whole and, where there is a key, its signature."""
    values = dataclasses.asdict(manifest) | {"format": FORMAT}
    body = _canonical(values)
    values["whole"] = hashlib.sha256(body).hexdigest()
    if manifest.key_id is not None:
        values["signature"] = keys.find(manifest.key_id, manifest.key_name).sign(body)
    return _canonical(values).decode() + "\n"


def read_manifest(text: bytes | str, place: str, keys: Keys | None = None) -> Manifest:
    """Read a manifest and hold it against its own hash.

    keys       hold it against its signature, too
    raises     BackupDamagedError: it was changed, cut off, or is none; TerminalError: the key is not at hand
    """
    try:
        values: dict[str, Any] = json.loads(text)
        whole, signature = values.pop("whole"), values.pop("signature", None)
        body = _canonical(values)
        said_format = values.pop("format")
        if said_format != FORMAT:
            raise BackupDamagedError(
                f"{place} has format {said_format}, expected {FORMAT}: another version of datops reads it"
            )
        manifest = _parse(values)
    except BackupDamagedError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BackupDamagedError(f"{place} is no manifest, or was cut off") from None
    if hashlib.sha256(body).hexdigest() != whole:
        raise BackupDamagedError(f"{place} was changed: the hash of the whole differs")
    _require_tame(manifest, place)
    if keys is not None and manifest.key_id is not None:
        expected = keys.find(manifest.key_id, manifest.key_name).sign(body)
        if not hmac.compare_digest(str(signature), expected):
            raise BackupDamagedError(
                f"{place} was changed by somebody without the key: its signature differs"
            )
    return manifest


def _parse(values: dict[str, Any]) -> Manifest:
    artefacts = tuple(
        Artefact(
            one["name"], one["sha256"], one["bytes"], tuple(Member(**member) for member in one["members"])
        )
        for one in values.pop("artefacts")
    )
    times: dict[str, Any] = {
        name: datetime.fromisoformat(values.pop(name))
        for name in ("started_at", "snapshot_at", "finished_at")
    }
    return Manifest(**values, **times, artefacts=artefacts)


def _require_tame(manifest: Manifest, place: str) -> None:
    """Refuse names that lead anywhere else: a manifest comes from a place others may write to."""
    names = [artefact.name for artefact in manifest.artefacts]
    names += [member.name for artefact in manifest.artefacts for member in artefact.members]
    for name in names:
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\0" in name or "\\" in name:
            raise BackupDamagedError(f"{place} names a file that leads out of the backup")
    if not _ULID.fullmatch(manifest.backup_id) or "/" in manifest.name:
        raise BackupDamagedError(f"{place} names no backup")


def _canonical(values: dict[str, Any]) -> bytes:
    text = json.dumps(values, default=_plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogateescape")


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)
