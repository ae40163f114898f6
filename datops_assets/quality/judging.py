"""Judging one table: from live loads of bronze to silver, in one transaction.

Silver is a function of the live loads and the contract version. However loads came, left,
came again or were judged in parts, silver holds what a rebuild from nothing would: for each
key the winner by `latest_by`, then load order, among the rows that pass. Two things make it a
fold over loads instead, and are documented as such: a unique rule that refuses rows judges
load after load, against what silver held before; and a foreign key looks at the other table
as it is at that moment (replay judges again).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg

from datops_assets.errors import DeclarationError
from datops_assets.postgres.tables import lock_table, table_id
from datops_assets.quality import record
from datops_assets.quality.contract import Contract, Disposition
from datops_assets.quality.judged import Judgement, JudgementBlockedError, Kind, Subject
from datops_assets.quality.run import Run

Connection = psycopg.Connection[Any]


def judge_table(
    conn: Connection,
    *,
    source: str,
    table: str,
    contract: Contract,
    rename: Mapping[str, str] | None = None,
    disposition: Disposition = "append",
    run_id: str | None = None,
) -> Judgement:
    """Judge what is new since the last judgement, and bring silver up to date.

    conn      autocommit, no transaction open; the table's lock is taken, or shared with the caller's
    returns   what was judged and changed; state `unchanged` when nothing was to do
    raises    JudgementBlockedError: a blocking check failed; nothing is written but the
              judgement itself and its check results
              DeclarationError: the contract does not fit the warehouse; nothing is written
              LockTakenError: readers kept the old table while a new one was to take its place
    promise   silver, quarantine, catalogue and checks change in one transaction
    """
    subject = Subject(source, table, contract, rename or {}, disposition)
    return _judge(conn, subject, "load", run_id)


def rebuild_table(
    conn: Connection,
    *,
    source: str,
    table: str,
    contract: Contract,
    rename: Mapping[str, str] | None = None,
    disposition: Disposition = "append",
    run_id: str | None = None,
) -> Judgement:
    """Judge every live load again from bronze into a new table, which then takes silver's place.

    As `judge_table`; readers see the old table until the moment of the swap.
    """
    subject = Subject(source, table, contract, rename or {}, disposition)
    return _judge(conn, subject, "rebuild", run_id, rebuild=True)


def judge_partitions(
    conn: Connection,
    *,
    source: str,
    table: str,
    contract: Contract,
    partition_keys: Sequence[str],
    rename: Mapping[str, str] | None = None,
    disposition: Disposition = "append",
    run_id: str | None = None,
) -> Judgement:
    """Judge the loads of some partitions again from bronze; of the others silver keeps what it holds.

    As `judge_table`. Where the contract changed since, all loads are judged again.
    """
    subject = Subject(source, table, contract, rename or {}, disposition)
    return _judge(conn, subject, "partition", run_id, again=tuple(partition_keys))


def judge_waiting(conn: Connection, subject: Subject, run_id: str | None) -> Judgement:
    """Judge what waits in the quarantine again, after whatever is new. As `judge_table`."""
    return _judge(conn, subject, "replay", run_id, waiting=True)


def _judge(
    conn: Connection,
    subject: Subject,
    kind: Kind,
    run_id: str | None,
    *,
    again: Sequence[str] = (),
    rebuild: bool = False,
    waiting: bool = False,
) -> Judgement:
    started_at = datetime.now(UTC)
    with lock_table(conn, subject.source, subject.table):
        number = table_id(conn, subject.source, subject.table)
        with judging_errors(conn, subject, number, started_at, run_id), conn.transaction():
            run = Run(conn, subject, number)
            work = run.plan(again=again, rebuild=rebuild, waiting=waiting)
            if work.what == "nothing":
                return Judgement(
                    subject.label,
                    kind,
                    "unchanged",
                    subject.version,
                    work.why,
                    rows_total=run.rows_total(),
                    checks=run.standing_checks(),
                )
            if work.what == "rebuild" and kind != "replay":
                kind = "rebuild"
            return run.carry_out(work, kind, started_at, run_id)


@contextmanager
def judging_errors(
    conn: Connection, subject: Subject, number: int, started_at: datetime, run_id: str | None
) -> Iterator[None]:
    """Keep that a judgement was blocked, and say of a contract that PostgreSQL cannot evaluate what is wrong.

    The judgement's transaction is inside, and rolled back by then.
    """
    try:
        yield
    except JudgementBlockedError as blocked:
        # That it was tried is kept in a transaction of its own.
        with conn.transaction():
            contract = record.contract_id(conn, number, subject)
            blocked.judgement = record.write_judgement(
                conn,
                number,
                contract,
                blocked.judgement,
                started_at=started_at,
                run_id=run_id,
                metrics={},
            )
        raise
    except psycopg.errors.ProgrammingError as error:
        raise _misfit(subject, error.diag.message_primary or type(error).__name__) from error
    except psycopg.errors.DataError as error:
        # The server's message may quote a cell; the name of its class does not.
        raise _misfit(subject, f"a row makes it fail with {type(error).__name__}") from error


def _misfit(subject: Subject, why: str) -> DeclarationError:
    return DeclarationError(
        [
            f"{subject.label}: PostgreSQL cannot evaluate this contract: {why}; see its expressions and references"
        ]
    )
