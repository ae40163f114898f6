"""The kinds of findings: what each one means, and what to do next. Shown beside every finding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind of finding."""

    means: str
    next_step: str


_WHO = "select * from pg_stat_activity where pid = …"
KINDS: Mapping[str, Kind] = {
    "long_statement": Kind(
        "A statement runs for half an hour; critical after an hour.",
        f"Ask whose it is ({_WHO}), else: select pg_cancel_backend(pid).",
    ),
    "idle_in_transaction": Kind(
        "A session does nothing inside a transaction for five minutes, and keeps its locks; critical after 30.",
        "Mend the program to commit; end it: select pg_terminate_backend(pid).",
    ),
    "lock_queue": Kind(
        "More than five sessions wait for one, or one for two minutes; critical after 10 s, or 15 minutes.",
        "End the session that is named, or let it finish; set lock_timeout where schemas are changed.",
    ),
    "connections": Kind(
        "More than 70 % of the server's places are taken; critical above 80 %.",
        "Look at `by role`; lower that login's `connections`, or put a pool before it.",
    ),
    "connection_storm": Kind(
        "A login has far more connections than it used to.",
        "Ask its program for a leak or a pool without limit; lower its `connections`.",
    ),
    "statement_flood": Kind(
        "A database runs far more transactions a second than it used to.",
        "Find the login in pg_stat_activity; a loop without pause, or somebody tries to exhaust the server.",
    ),
    "refused_connections": Kind(
        "Ten connections or more found no place between two looks.",
        "Look at `connections`: who has taken them?",
    ),
    "temporary_files": Kind(
        "A statement has a GiB of temporary files, or a database wrote one; critical above 10 GiB.",
        "Cancel the statement; lower `temp_file_mb` of its login, or give it more work_mem.",
    ),
    "rollbacks": Kind(
        "Most transactions of a database fail.", "Read the server's log: a program goes on after an error."
    ),
    "deadlocks": Kind(
        "Three deadlocks or more between two looks.",
        "Let programs lock rows in one order; the log names both statements.",
    ),
    "brute_force": Kind(
        "Ten logins of a role or from a client failed; critical where ten fail in a minute.",
        "Shut the client out in pg_hba.conf; rotate the login's password. Slow ones: a program with an old password.",
    ),
    "break_in": Kind(
        "A login succeeded from where ten had failed within a minute.",
        "At once: datops database rotate --hurry, end the sessions of the login, read what it did.",
    ),
    "denied": Kind(
        "A role was refused twenty statements between two looks (where the log has errors).",
        "Ask whose it is: a missing grant of a new program, or somebody feels for rights.",
    ),
    "new_client": Kind(
        "A login comes from a network (/24, /64) that it never came from, after a week of looking.",
        "Ask the team. Not theirs: rotate the password with --hurry and shut the network out.",
    ),
    "new_application": Kind(
        "A login comes by a program that it never used, after a week of looking.",
        "For your notice; beside a new_client or a break_in it says by what.",
    ),
    "exfiltration": Kind(
        "More rows are copied out than is usual for the login; before that is known 100,000, critical from a million.",
        "Ask the team. Its work: `exports: true` at the login. Else end the session and rotate the password.",
    ),
    "exfiltration_select": Kind(
        "A login was given more rows by select than usual (pg_stat_statements); before that is known 100,000.",
        "Ask the team. Its work: `exports: true`. Else see its statements by rows, and rotate the password.",
    ),
    "new_statement": Kind(
        "A login ran a statement of a shape that it never ran (pg_stat_statements), after a week of looking.",
        "For your notice: select query from pg_stat_statements where queryid = …; a release, or somebody feels around.",
    ),
    "off_hours": Kind(
        "A login works at an hour (UTC; working days, weekend) at which it never did, after a week of looking.",
        "Ask the team: a late job, or somebody with its password. Not theirs: rotate the password with --hurry.",
    ),
    "bulk_read": Kind(
        "Far more rows of a database are read than usual.",
        "Find the statement in pg_stat_activity: a missing index, a new report, or rows that leave by select.",
    ),
    "privilege": Kind(
        "A role can do more than before, or is new; critical for superuser, bypassrls, createrole, replication, pg_….",
        "Not yours: datops database drift, then apply; find who did it in the log.",
    ),
    "grant": Kind(
        "Somebody may do something in a database that nobody might before; critical for PUBLIC.",
        "datops database plan shows what to revoke; apply does it.",
    ),
    "hba": Kind(
        "pg_hba.conf: who may connect by which method has changed.",
        "Compare the file with the one you keep; select pg_reload_conf() after mending it.",
    ),
    "setting": Kind(
        "A setting of the server has changed; critical where it guards something (logins, archive, durability).",
        "Not yours: alter system reset …, select pg_reload_conf().",
    ),
    "mass_change": Kind(
        "More than half of a table's rows were deleted or written over, or the table is gone.",
        "Not meant: end the sessions of the login, then restore the table from a backup: docs/backup.md.",
    ),
    "wraparound": Kind(
        "Autovacuum does not keep up with old transactions; critical at twice the age, or 70 % of the end.",
        "Find what holds it (old transactions, slots, prepared ones), then: vacuum (freeze) of the oldest tables.",
    ),
    "archive": Kind(
        "The last attempt to archive the log failed.",
        "Read the log for archive_command; until it works pg_wal grows.",
    ),
    "replication_lag": Kind(
        "Who follows the log has a GiB of it not yet, or is five minutes behind; critical after 30.",
        "See pg_stat_replication: a slow disk or network there, a long query on it, or nobody applies.",
    ),
    "log_size": Kind(
        "The log takes twice what max_wal_size and wal_keep_size mean, and a GiB; critical at four times.",
        "Look at `archive` and `slot`, and for one that keeps it: select * from pg_replication_slots.",
    ),
    "growth": Kind(
        "A database grew by a GiB within an hour, and by far more than it used to.",
        "Find the table: select relname, pg_total_relation_size(oid) from pg_class order by 2 desc; is there disk?",
    ),
    "slot": Kind(
        "A replication slot keeps a GiB of log, critical where nobody follows it or it is lost.",
        "Start its reader, or: select pg_drop_replication_slot(…).",
    ),
}  # fmt: skip
