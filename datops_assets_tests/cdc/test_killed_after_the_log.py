"""kill -9 where what stands on the log is written: histories, judgements of mirrors, marks of deleted rows."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import closing

import psycopg
import pytest

from datops_assets.cdc import FollowedMirror, drain, lease, take_snapshot, tell_history
from datops_assets.errors import LockTakenError
from datops_assets.postgres import failpoints
from datops_assets.quality import Contract, MirrorSubject, judge_mirror
from datops_assets_tests.cdc.conftest import Followed
from datops_assets_tests.cdc.test_history import as_of, keep, source_columns, source_now, tell, versions
from datops_assets_tests.cdc.test_killed import finish
from datops_assets_tests.cdc.test_silver_contract import CONTRACT, held, judge
from datops_assets_tests.cdc.test_soft_deletes import declare
from datops_assets_tests.cdc.test_soft_deletes import held as rows_and_marks

pytestmark = pytest.mark.cdc_kill


def kill_at(
    failpoint: str, hits: int, followed: Followed, work: Callable[[psycopg.Connection], object]
) -> None:
    """Let a fork work until it comes by for the `hits`-th time, and dies."""
    pid = os.fork()
    if pid == 0:
        try:
            failpoints.arm(failpoint, hits)
            with closing(psycopg.connect(followed.warehouse.url, autocommit=True)) as conn:
                work(conn)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, f"never came by {failpoint}"


TELLING = [("history_written", 1), ("history_written", 3), ("history_told", 1), ("history_told", 4),
           ("history_committed", 1), ("history_committed", 3)]  # fmt: skip


@pytest.mark.cdc_case(41)
@pytest.mark.parametrize(("failpoint", "hits"), TELLING)
def test_a_history_killed_at_any_commit_goes_on_from_its_place(
    followed: Followed, failpoint: str, hits: int
) -> None:
    """Told in pieces of one transaction each: versions and place are kept together, or neither."""
    followed.run("create table t (id int primary key, v text)")
    followed.run("insert into t values (1, 'a'), (2, 'b')")
    keep(followed)
    known = [source_now(followed)]
    for statement in (
        "update t set v = 'c' where id = 1",
        "delete from t where id = 2",
        "insert into t values (2, 'again'); update t set id = 3 where id = 1",
        "truncate t",
        "insert into t values (4, 'd')",
    ):
        followed.run(statement)
        known.append(source_now(followed))
    followed.drain()
    kill_at(failpoint, hits, followed, lambda conn: tell_history(conn, "erp", "t", {}, most=1))
    tell(followed, most=1)
    for place, rows in known:
        assert as_of(followed, place, ["id", "v"]) == rows
    assert len(versions(followed, "id")) == 2 + 1 + 2 + 1
    assert tell(followed).changes == 0


@pytest.mark.parametrize(("failpoint", "hits"), [("table_copied", 1), ("table_renewed", 1), ("history_told", 1),
                                                 ("history_committed", 1), ("history_told", 2)])  # fmt: skip
def test_a_history_whose_table_is_copied_anew_is_killed_and_goes_on(
    followed: Followed, failpoint: str, hits: int
) -> None:
    """The copy waits for the stream, and is taken once."""
    followed.run("create table t (id int primary key, v text); insert into t values (1, 'a'), (2, 'b')")
    keep(followed)
    followed.run("update t set v = 'c' where id = 1")
    known = [(*source_now(followed), source_columns(followed))]
    followed.drain()
    followed.run("alter table t add column n int default 7")
    followed.run("delete from t where id = 2")

    def work(conn: psycopg.Connection) -> None:
        with lease(conn, "erp"):
            drain(conn, followed.parameters, followed.stream)
        tell_history(conn, "erp", "t", {}, most=1)

    kill_at(failpoint, hits, followed, work)
    finish(followed)
    tell(followed)
    known.append(
        (*source_now(followed), source_columns(followed))
    )  # a copy's values are true from its place on
    for place, rows, columns in known:
        assert as_of(followed, place, columns) == rows
    open_, all_ = followed.warehouse.fetch(
        "select count(*) filter (where _is_current), count(*) from silver.erp_t_history"
    )[0]
    assert (open_, all_) == (1, 4)


REBUILDING = ["judge.merged", "swap.renamed", "swap.done", "mirror.judged", "mirror.committed"]
JUDGING = ["judge.inserted", "judge.merged", "judge.recorded", "mirror.judged", "mirror.committed"]


@pytest.mark.cdc_case(41)
@pytest.mark.parametrize(
    ("failpoint", "kind"),
    [
        *((name, "load") for name in JUDGING),
        *((name, "rebuild") for name in REBUILDING),
    ],
)
def test_a_judgement_of_a_mirror_killed_at_any_step_is_all_or_nothing(
    followed: Followed, failpoint: str, kind: str
) -> None:
    """Silver, quarantine, checks and place are kept together; the next judgement misses no key and takes none twice."""
    followed.run("create table t (id int primary key, amount text)")
    followed.run("insert into t values (1, '1'), (2, '-2'), (3, '3')")
    followed.follow("t")
    followed.snapshot()
    judge(followed)
    before = held(followed)
    followed.run("update t set amount = '2' where id = 2; update t set amount = 'x' where id = 3")
    followed.run("insert into t values (4, '4'); delete from t where id = 1")
    followed.drain()
    subject = MirrorSubject("erp", "t", Contract.model_validate(CONTRACT), {}, "merge")
    kill_at(
        failpoint, 1, followed,
        lambda conn: judge_mirror(conn, subject, FollowedMirror("erp", "t"), kind=kind),
    )  # fmt: skip
    after = ([(2, "2.00"), (4, "4.00")], [("3", ["amount: not a number that numeric(10,2) holds exactly"])])
    committed = failpoint == "mirror.committed"
    assert held(followed) == (after if committed else before)
    again = judge(followed)
    assert (held(followed), again.state) == (after, "unchanged" if committed else "judged")
    assert again.rows_total == 2
    judge(followed, "rebuild")
    assert held(followed) == after


@pytest.mark.cdc_case(41)
@pytest.mark.parametrize("failpoint", ["before_merge", "after_merge", "before_commit", "after_commit"])
def test_a_drain_that_marks_deleted_rows_is_killed_and_each_is_marked_once(
    followed: Followed, failpoint: str
) -> None:
    followed.run("create table t (id int primary key, v text)")
    followed.run("insert into t select n, 'v' || n from generate_series(1, 6) n")
    declare(followed, soft=True)
    followed.snapshot()
    followed.run("update t set v = 'last' where id = 1; delete from t where id < 3")
    followed.run("begin; truncate t; insert into t values (1, 'again'); commit")
    followed.run("update t set id = 9 where id = 1")

    def work(conn: psycopg.Connection) -> None:
        with lease(conn, "erp"):
            drain(conn, followed.parameters, followed.stream)

    kill_at(failpoint, 1, followed, work)
    finish(followed)
    there, gone = rows_and_marks(followed, "id, v")
    assert there == {("9", "again")}
    assert gone == {("1", "again"), ("2", "v2"), *((str(n), f"v{n}") for n in range(3, 7))}
    assert len(followed.log("t")) == 7
    (told,) = followed.warehouse.fetch(
        "select count(*) from bronze.erp_t m join bronze.erp_t_changes l"
        " on (l._commit_lsn, l._seq, l._committed_at) = (m._deleted_lsn, m._deleted_seq, m._deleted_at)"
    )[0]
    assert told == len(gone)


@pytest.mark.cdc_case(38)
@pytest.mark.parametrize("failpoint", ["snapshot_begun", "slot_made", "table_copied", "snapshot_entered"])
def test_a_resync_that_is_killed_loses_no_marked_row(followed: Followed, failpoint: str) -> None:
    followed.run(
        "create table t (id int primary key, v text); insert into t values (1, 'a'), (2, 'b'), (3, 'c')"
    )
    declare(followed, soft=True)
    followed.snapshot()
    followed.run("delete from t where id = 1")
    followed.drain()
    followed.run("delete from t where id = 2")

    def work(conn: psycopg.Connection) -> None:
        with lease(conn, "erp"):
            take_snapshot(conn, followed.warehouse.warehouse.connect, followed.parameters, followed.stream)

    kill_at(failpoint, 1, followed, work)
    once_free(followed.snapshot)
    finish(followed)
    assert rows_and_marks(followed, "id, v") == ({("3", "c")}, {("1", "a"), ("2", "b")})


def once_free(work: Callable[[], object]) -> None:
    """Work as soon as both servers have noticed that who held lease and slot is dead."""
    for _ in range(200):
        try:
            work()
            return
        except Exception as error:
            if not isinstance(error, LockTakenError) and "somebody reads the slot" not in str(error):
                raise
            time.sleep(0.05)
    raise AssertionError("the dead process still holds the stream")
