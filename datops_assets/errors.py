"""Every error datops raises, grouped by what the caller does about it.

    DatopsError
    ├── RetryableError          try again: the same call may succeed later
    │   ├── WarehouseUnreachableError
    │   ├── SourceUnreachableError
    │   ├── DestinationUnreachableError
    │   ├── FileChangedError
    │   └── LockTakenError
    ├── TerminalError           stop for a person: nothing changes until somebody acts
    │   ├── DeclarationError    the YAML is wrong (exit code 2)
    │   ├── WarehouseError      the server is missing, too old, refuses us, or is full
    │   ├── SourceRefusedError  a source is there and says no: credentials, permissions, no such table
    │   ├── DestinationRefusedError  a destination says no: credentials, permissions, other columns
    │   ├── ContainerDamagedError   a file as a whole cannot be read
    │   ├── LoadRefusedError    a policy of the document says no
    │   │   └── SchemaFrozenError   `schema: freeze`, and the columns are others
    │   ├── BackupError         a backup, a restore or a drill could not be done
    │   │   ├── BackupDamagedError  what is kept is not what was written
    │   │   └── BackupRefusedError  it would overwrite or remove what it must not
    │   └── BlockedError        a blocking check failed; silver was rolled back
    └── RecordError             set one record aside, go on with the rest

A message says what happened, where, and the next command to type. It never holds a
secret or a cell value.
"""

from __future__ import annotations

from typing import Any


class DatopsError(Exception):
    """Anything datops raises on purpose."""


class RetryableError(DatopsError):
    """Try again: the same call may succeed later."""


class TerminalError(DatopsError):
    """Stop for a person: nothing changes until somebody acts."""


class RecordError(DatopsError):
    """One record cannot be taken; it is set aside and the rest goes on."""


class WarehouseUnreachableError(RetryableError):
    """The server does not answer (yet)."""


class SourceUnreachableError(RetryableError):
    """A database or an API does not answer, or stopped in the middle; nothing of the unit was kept."""


class FileChangedError(RetryableError):
    """A file grew, shrank or vanished while it was being read; nothing of it was kept."""


class DestinationUnreachableError(RetryableError):
    """A destination does not answer, or stopped in the middle."""


class LockTakenError(RetryableError):
    """Another process works on the same table."""


class DeclarationError(TerminalError):
    """A document is wrong. `problems` holds one `file:line: what, what was expected` each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class WarehouseError(TerminalError):
    """The warehouse is missing, too old, refuses us, or is full."""


class SourceRefusedError(TerminalError):
    """A database or an API says no: wrong credentials, no permission, no such table or page."""


class ContainerDamagedError(TerminalError):
    """A file as a whole cannot be read (cut gzip, broken Parquet); it was refused whole."""


class DestinationRefusedError(TerminalError):
    """A destination is there and says no; it is as it was."""


class LoadRefusedError(TerminalError):
    """A policy of the document refuses this load; nothing was written."""


class SchemaFrozenError(LoadRefusedError):
    """Columns came, left or changed their type under `schema: freeze`. `difference` says which."""

    def __init__(self, message: str, difference: dict[str, Any]) -> None:
        self.difference = difference
        super().__init__(message)


class BlockedError(TerminalError):
    """A blocking check failed before commit; silver is as it was."""


class BackupError(TerminalError):
    """A backup, a restore or a drill could not be done; nothing half done counts as good."""


class BackupDamagedError(BackupError):
    """What a destination keeps is not what was written: changed, cut off, missing, or another file."""


class BackupRefusedError(BackupError):
    """It would overwrite or remove something that it was not told to by name."""
