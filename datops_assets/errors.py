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
secret or a cell value. What follows "Next:" in a class's docstring is what people are told to do;
docs/reference/errors.md is written from it.
"""

from __future__ import annotations

from typing import Any


class DatopsError(Exception):
    """Anything datops raises on purpose."""


class RetryableError(DatopsError):
    """Try again: the same call may succeed later.

    Next: nothing at first: a run tries it again by its `retries:`. If it stays so, the message names
    who does not answer.
    """


class TerminalError(DatopsError):
    """Stop for a person: nothing changes until somebody acts.

    Next: what the message says; a run does not try it again by itself.
    """


class RecordError(DatopsError):
    """One record cannot be taken; it is set aside and the rest goes on.

    Next: `datops quarantine show PIPELINE.TABLE`, correct the record where it comes from, or the
    contract; then `datops quarantine replay`.
    """


class WarehouseUnreachableError(RetryableError):
    """The server does not answer (yet).

    Next: `datops doctor`; with a server of your own look whether it runs and whether
    `DATOPS_WAREHOUSE_URL` is right.
    """


class SourceUnreachableError(RetryableError):
    """A database or an API does not answer, or stopped in the middle; nothing of the unit was kept.

    Next: `datops connector test PIPELINE` says whether it answers now; then run again. What was loaded
    before stays.
    """


class FileChangedError(RetryableError):
    """A file grew, shrank or vanished while it was being read; nothing of it was kept.

    Next: run again once the file is written; `landing:` in the document says when a file counts as
    complete.
    """


class DestinationUnreachableError(RetryableError):
    """A destination does not answer, or stopped in the middle.

    Next: run the export again; what the message says about the target holds until then.
    """


class LockTakenError(RetryableError):
    """Another process works on the same table.

    Next: wait for the other run, or end it; `datops pipeline status` shows runs. A lock ends with its
    process.
    """


class DeclarationError(TerminalError):
    """A document is wrong. `problems` holds one `file:line: what, what was expected` each.

    Next: correct the line that is named, then `datops validate`. Exit code 2; nothing was started.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class WarehouseError(TerminalError):
    """The warehouse is missing, too old, refuses us, or is full.

    Next: what the message says; `datops doctor` looks at version, rights and disk.
    """


class SourceRefusedError(TerminalError):
    """A database or an API says no: wrong credentials, no permission, no such table or page.

    Next: correct the credentials (the variable that `…_env` names), the permission or the name there,
    then `datops connector test PIPELINE`.
    """


class ContainerDamagedError(TerminalError):
    """A file as a whole cannot be read (cut gzip, broken Parquet); it was refused whole.

    Next: have the file delivered again: with other content it is taken by itself. `datops load list
    PIPELINE.TABLE` shows what was refused.
    """


class DestinationRefusedError(TerminalError):
    """A destination is there and says no; it is as it was.

    Next: correct credentials, permission or columns there, then run the export again.
    """


class LoadRefusedError(TerminalError):
    """A policy of the document refuses this load; nothing was written.

    Next: the message names the policy and the command that lets the load in, `datops load undo` or
    `datops load reload`.
    """


class SchemaFrozenError(LoadRefusedError):
    """Columns came, left or changed their type under `schema: freeze`. `difference` says which.

    Next: look at the difference in the message or in the check `schema`; `datops contract accept
    PIPELINE.TABLE` takes the new columns.
    """

    def __init__(self, message: str, difference: dict[str, Any]) -> None:
        self.difference = difference
        super().__init__(message)


class BlockedError(TerminalError):
    """A blocking check failed before commit; silver is as it was.

    Next: `datops contract test` shows why; correct data or contract and run again. Until then silver is
    what it was.
    """


class BackupError(TerminalError):
    """A backup, a restore or a drill could not be done; nothing half done counts as good.

    Next: what the message says; `datops backup list` shows which backups are good.
    """


class BackupDamagedError(BackupError):
    """What a destination keeps is not what was written: changed, cut off, missing, or another file.

    Next: `datops backup verify` names what is damaged; restore from another destination, and take a new
    backup.
    """


class BackupRefusedError(BackupError):
    """It would overwrite or remove something that it was not told to by name.

    Next: name what is to be overwritten or removed, as the message shows it.
    """
