"""Under which account the server runs, because PostgreSQL refuses to run as root.

root, first choice   the user `nobody` of a user namespace, where root's files belong to
                     that user: nothing changes hands
root, second choice  the user `nobody`, who gets the server's folder
a user without name  as root's first choice: initdb asks for the user's name (containers
                     with an arbitrary user id)
anybody else         oneself
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datops_assets.errors import WarehouseError

# The server gets no variable of ours: it needs none, and a secret in one would be readable
# in /proc for as long as it runs.
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True)
class Account:
    """How a PostgreSQL program is run: behind `prefix`, as `uid` where one is given."""

    prefix: tuple[str, ...] = ()
    uid: int | None = None

    def run(
        self, command: Sequence[str], *, folder: Path = Path("/"), **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end in `folder` and keep what it says."""
        return subprocess.run(
            [*self.prefix, *command],
            capture_output=True,
            check=False,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            env=_ENVIRONMENT | environment,
            cwd=folder,
            umask=0o077,
            **self._identity(),
        )

    def start(self, command: Sequence[str], log: Path) -> int:
        """Start a program that outlives us and answer its process id.

        The shell in between leaves at once, so the program belongs to init: it never
        becomes a zombie of ours, which PostgreSQL would take for a living server.
        """
        launch = subprocess.run(
            ["/bin/sh", "-c", '"$@" </dev/null >>"$0" 2>&1 & echo $!', str(log), *self.prefix, *command],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            check=True,
            start_new_session=True,
            env=_ENVIRONMENT,
            cwd="/",
            umask=0o077,
            **self._identity(),
        )
        return int(launch.stdout)

    def reaches(self, *paths: Path) -> bool:
        """Whether the account may read and enter (or run) all these folders and programs."""
        test = 'for path; do test -r "$path" -a -x "$path" || exit 1; done'
        return self.run(["/bin/sh", "-c", test, "sh", *map(str, paths)]).returncode == 0

    def take(self, path: Path) -> None:
        """Give one file or folder of ours to the account."""
        if self.uid is not None:
            os.chown(path, self.uid, self.uid)

    def take_all(self, folder: Path) -> None:
        """Give a folder and everything in it to the account."""
        if self.uid is not None and folder.stat().st_uid != self.uid:
            for path in (*folder.rglob("*"), folder):
                os.chown(path, self.uid, self.uid, follow_symlinks=False)

    def _identity(self) -> dict[str, Any]:
        return {} if self.uid is None else {"user": self.uid, "group": self.uid, "extra_groups": []}


def choose_account(data: Path) -> Account:
    """The account for the server whose data folder is (or will be) `data`.

    raises  WarehouseError: the folder is another user's, or there is no account to run it
    """
    owner, own = data.stat().st_uid if data.exists() else None, os.geteuid()
    if own == 0 and owner:  # root on the server of an ordinary user
        return _numeric(owner)
    if own == 0:
        return _namespace() or _numeric(_nobody())
    if owner not in (None, own):
        raise WarehouseError(
            f"{data} belongs to user id {owner}: "
            "run the command as that user, or set DATOPS_HOME to a folder of yours"
        )
    return Account() if _has_name(own) else _namespace() or Account()


def _namespace() -> Account | None:
    unshare = shutil.which("unshare")
    if unshare is None:
        return None
    uid = _nobody()
    account = Account((unshare, "--user", f"--map-user={uid}", f"--map-group={uid}"))
    return account if account.run(["/bin/sh", "-c", ":"]).returncode == 0 else None


def _numeric(uid: int) -> Account:
    account = Account(uid=uid)
    try:
        account.run(["/bin/sh", "-c", ":"])
    except (OSError, subprocess.SubprocessError) as error:
        raise WarehouseError(
            "PostgreSQL refuses to run as root, and root gets neither a user namespace nor another id here; "
            "run the command as an ordinary user, or set DATOPS_WAREHOUSE_URL to a server"
        ) from error
    return account


def _nobody() -> int:
    # macOS says -2; as an id that is 2^32 - 2.
    return pwd.getpwnam("nobody").pw_uid % 2**32 if _has_name("nobody") else 65534


def _has_name(user: int | str) -> bool:
    try:
        pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)
    except KeyError:
        return False
    return True
