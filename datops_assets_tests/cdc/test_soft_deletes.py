"""`deletes: soft`: live rows of the mirror are the source, and what was deleted stays with its last values."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from datops_assets.cdc import ChangeStream, FollowedMirror, renew_view, tell_history
from datops_assets.cdc.marks import Marks, marks_of
from datops_assets.errors import LoadRefusedError
from datops_assets.quality import Contract, MirrorSubject, judge_mirror
from datops_assets_tests.cdc.conftest import Followed
from datops_assets_tests.cdc.test_history import as_of, source_columns, source_now
from datops_assets_tests.cdc.test_stream_component import datops, erp

__all__ = ["erp"]

MIRROR = sql.Identifier("bronze", "erp_t")
Row = tuple[str | None, ...]


def declare(followed: Followed, *, soft: bool, history: bool = False, logged: bool = True) -> None:
    """Say in the document what becomes of deleted rows."""
    followed.follow("t")
    tables = tuple(
        dataclasses.replace(one, keeps_deleted=soft, history=history, is_logged=logged)
        for one in followed.stream.tables
    )
    followed.stream = ChangeStream("erp", followed.stream.slot, followed.stream.publication, tables)


def held(followed: Followed, columns: str = "id, v, big") -> tuple[set[Row], set[Row]]:
    """The rows of the mirror that live, and those that are marked, as text."""
    marks = marks_of(followed.warehouse.conn, MIRROR)
    assert marks is not None
    texts = ", ".join(f"m.{name.strip()}::text" for name in columns.split(","))
    at = marks.names[0]
    found: list[set[Row]] = []
    for which in ("is null", "is not null"):
        query = f'select {texts} from bronze.erp_t m where m."{at}" {which}'
        found.append(set(followed.warehouse.conn.execute(query).fetchall()))
    return found[0], found[1]


@pytest.fixture
def soft(followed: Followed) -> Followed:
    """Three rows of which deleted ones stay; one value is stored out of line."""
    followed.run("create table t (id int primary key, v text, big text)")
    followed.run("alter table t alter big set storage external")
    followed.run("insert into t select n, 'v' || n, repeat('b' || n, 3000) from generate_series(1, 3) n")
    declare(followed, soft=True)
    followed.snapshot()
    return followed


def test_a_deleted_row_stays_with_its_last_values_and_says_when_and_by_which_change(soft: Followed) -> None:
    soft.run("update t set v = 'last' where id = 1; delete from t where id = 1")
    soft.drain()
    marked = soft.warehouse.conn.execute(
        "select id, v, length(big), _deleted_at, _deleted_lsn, _deleted_seq from bronze.erp_t"
        " where _deleted_at is not null"
    ).fetchall()
    assert [row[:3] for row in marked] == [(1, "last", 6000)]
    by = soft.warehouse.conn.execute(
        "select _committed_at, _commit_lsn, _seq from bronze.erp_t_changes where _op = 'd'"
    ).fetchall()
    assert [row[3:] for row in marked] == by
    assert held(soft, "id")[0] == {("2",), ("3",)}


@pytest.mark.cdc_case(14)
def test_a_key_that_comes_again_lives_and_the_mark_is_gone(soft: Followed) -> None:
    soft.run("delete from t where id = 1")
    soft.drain()
    soft.run("insert into t values (1, 'again', 'b')")
    soft.drain()
    assert held(soft, "id, v") == ({("1", "again"), ("2", "v2"), ("3", "v3")}, set())
    soft.run("delete from t where id = 1; insert into t values (1, 'third', 'b')")
    soft.run("insert into t values (9, 'short', 'b'); delete from t where id = 9")
    soft.drain()
    assert held(soft, "id, v") == ({("1", "third"), ("2", "v2"), ("3", "v3")}, {("9", "short")})


@pytest.mark.cdc_case(20)
def test_a_truncate_marks_all_also_what_came_in_its_transaction(soft: Followed) -> None:
    soft.run("delete from t where id = 3")
    soft.run(
        "begin; update t set v = 'w' where id = 2; insert into t values (4, 'd', null); truncate t;"
        " insert into t values (1, 'new', null); commit"
    )
    soft.drain()
    assert held(soft, "id, v") == ({("1", "new")}, {("2", "w"), ("3", "v3"), ("4", "d")})
    ops = soft.warehouse.conn.execute(
        "select m.id, l._op::text from bronze.erp_t m join bronze.erp_t_changes l"
        " on (l._commit_lsn, l._seq) = (m._deleted_lsn, m._deleted_seq) order by 1"
    ).fetchall()
    assert ops == [(2, "t"), (3, "d"), (4, "t")]


@pytest.mark.cdc_case(15, 17)
def test_a_moved_key_leaves_the_old_one_marked_also_where_it_left_out_values(soft: Followed) -> None:
    """Cases 15 and 17: the new key's row may stand where a marked one did."""
    soft.run("delete from t where id = 3")
    soft.drain()
    soft.run("update t set id = 3 where id = 1")
    soft.run("update t set id = 7, big = 'short' where id = 2")
    soft.drain()
    assert held(soft) == (
        {("3", "v1", "b1" * 3000), ("7", "v2", "short")},
        {("1", "v1", "b1" * 3000), ("2", "v2", "b2" * 3000)},
    )


def test_an_equal_key_in_another_form_stays_one_row(followed: Followed) -> None:
    followed.run("create table t (id numeric primary key, big text)")
    followed.run(
        "alter table t alter big set storage external; insert into t values (1.0, repeat('b', 5000))"
    )
    declare(followed, soft=True)
    followed.snapshot()
    followed.run("update t set id = 1.00")
    followed.drain()
    assert held(followed, "id, big") == ({("1.00", "b" * 5000)}, set())


def test_a_copy_anew_marks_what_it_lacks_and_keeps_what_was_marked(soft: Followed) -> None:
    soft.run("delete from t where id = 1")
    soft.drain()
    before = soft.warehouse.conn.execute(
        "select _deleted_at, _deleted_lsn from bronze.erp_t where id = 1"
    ).fetchall()
    soft.run("delete from t where id = 2; insert into t values (4, 'd', null)")
    place = soft.snapshot().lsn
    assert held(soft, "id, v") == ({("3", "v3"), ("4", "d")}, {("1", "v1"), ("2", "v2")})
    query = "select _deleted_at, _deleted_lsn from bronze.erp_t where id = 1"
    assert soft.warehouse.conn.execute(query).fetchall() == before
    query = "select _deleted_lsn::text, _deleted_seq from bronze.erp_t where id = 2"
    assert soft.warehouse.conn.execute(query).fetchall() == [(place, None)]
    soft.run("insert into t values (2, 'back', null)")
    soft.drain()
    assert held(soft, "id, v") == ({("2", "back"), ("3", "v3"), ("4", "d")}, {("1", "v1")})


@pytest.mark.cdc_case(55)
def test_a_table_copied_for_its_columns_keeps_what_marked_rows_had(soft: Followed) -> None:
    """Case 55: a column that left, one of a type that holds no more what was there, one that is new."""
    soft.run("delete from t where id = 1")
    soft.drain()
    soft.run("alter table t drop column big; alter table t add column n int not null default 5")
    soft.run("alter table t alter v type int using length(v)")
    assert soft.drain().copied == ["t"]
    columns = [
        name
        for (name,) in soft.warehouse.conn.execute(
            "select attname from pg_attribute where attrelid = 'bronze.erp_t'::regclass"
            " and attname like 'v\\_until\\_%'"
        )
    ]
    assert len(columns) == 1
    assert held(soft, f"id, v, n, big, {columns[0]}") == (
        {("2", "2", "5", None, None), ("3", "2", "5", None, None)},
        {("1", None, None, "b1" * 3000, "v1")},
    )
    soft.run("insert into t values (1, 1, 1)")
    soft.drain()
    assert held(soft, "id, v, n")[1] == set()


@pytest.mark.cdc_case(24)
def test_our_columns_make_room_for_the_sources(soft: Followed) -> None:
    """Case 24: whatever the source calls its columns."""
    soft.run("delete from t where id = 1; alter table t add column _deleted_at timestamptz")
    soft.run("update t set _deleted_at = '2020-01-01' where id = 2; delete from t where id = 3")
    soft.drain()
    assert marks_of(soft.warehouse.conn, MIRROR) == Marks("__", "lsn")
    assert held(soft, "id, _deleted_at") == ({("2", "2020-01-01 00:00:00+00")}, {("1", None), ("3", None)})
    assert marks_of(soft.warehouse.conn, sql.Identifier("bronze", "erp_t_changes")) is None


def test_a_source_with_columns_of_these_names_has_no_marks(followed: Followed) -> None:
    followed.run(
        "create table t (id int primary key, _deleted_at timestamptz, _deleted_lsn pg_lsn, _deleted_seq int8)"
    )
    followed.run("insert into t values (1, now(), '0/1', 1), (2, null, null, null)")
    declare(followed, soft=False)
    followed.snapshot()
    followed.run("delete from t where id = 2")
    followed.drain()
    followed.require_equal()
    declare(followed, soft=True)
    followed.run("delete from t where id = 1")
    followed.drain()
    assert held(followed, "id, _deleted_seq") == (set(), {("1", "1")})


def test_deletes_become_soft_and_hard_again_while_the_stream_runs(soft: Followed) -> None:
    conn = soft.warehouse.conn
    renew_view(conn, "erp", "t", {})
    conn.execute("create view public.mine as select id from silver.erp_t")
    soft.run("delete from t where id = 1")
    soft.drain()
    declare(soft, soft=False)
    soft.run("delete from t where id = 2")
    soft.drain()
    soft.require_equal()
    assert marks_of(conn, MIRROR) is None
    declare(soft, soft=True)
    soft.run("delete from t where id = 3; insert into t values (5, 'e', null)")
    soft.drain()
    assert held(soft, "id") == ({("5",)}, {("3",)})
    assert conn.execute("select id from public.mine").fetchall() == [(5,)]


def test_marks_that_a_view_stands_on_stay_until_it_is_dropped(soft: Followed) -> None:
    conn = soft.warehouse.conn
    conn.execute("create view public.gone as select id from bronze.erp_t where _deleted_at is not null")
    soft.run("delete from t where id = 1")
    soft.drain()
    declare(soft, soft=False)
    with pytest.raises(
        LoadRefusedError, match="is to lose its marks of deleted rows, and views stand on them"
    ):
        soft.drain()
    assert conn.execute("select id from public.gone").fetchall() == [(1,)]
    conn.execute("drop view public.gone")
    soft.drain()
    soft.require_equal()


def test_silver_leaves_marked_rows_out(soft: Followed) -> None:
    """The view and the contract show what the source has; bronze keeps the rest."""
    conn = soft.warehouse.conn
    assert renew_view(conn, "erp", "t", {"v": "value"}) == {"id": "integer", "value": "text", "big": "text"}
    soft.run("delete from t where id = 1")
    soft.drain()
    assert conn.execute("select id, value from silver.erp_t order by 1").fetchall() == [(2, "v2"), (3, "v3")]
    soft.run("alter table t alter id type text using 'A' || id")  # the mirror is made anew, the view follows
    soft.drain()
    assert conn.execute("select id, value from silver.erp_t order by 1").fetchall() == [
        ("A2", "v2"),
        ("A3", "v3"),
    ]


def test_a_contract_judges_the_rows_that_live(soft: Followed) -> None:
    contract = {"key": ["id"], "columns": {"id": {"type": "bigint"}, "v": {"type": "text"}}}
    subject = MirrorSubject("erp", "t", Contract.model_validate(contract), {}, "merge")

    def judge(kind: Any = "load") -> tuple[str, list[tuple[Any, ...]]]:
        done = judge_mirror(soft.warehouse.conn, subject, FollowedMirror("erp", "t"), kind=kind)
        return done.kind, soft.warehouse.conn.execute("select id, v from silver.erp_t order by id").fetchall()

    soft.run("delete from t where id = 3")
    soft.drain()
    assert judge()[1] == [(1, "v1"), (2, "v2")]
    soft.run("delete from t where id = 1; insert into t values (3, 'c', null)")
    soft.drain()
    assert judge() == ("load", [(2, "v2"), (3, "c")])
    assert judge("rebuild")[1] == [(2, "v2"), (3, "c")]


def test_the_document_declares_deletes_and_preflight_says_what_a_change_of_it_does(
    erp: Followed, project: Path
) -> None:
    file = project / "stream.yaml"
    hard = file.read_text()
    soft = hard.replace("tables:", "deletes: soft\ntables:")
    datops("snapshot")
    file.write_text(soft)
    (finding,) = [one for one in datops("preflight") if one["what"] == "bronze.erp_orders"]
    assert "rows that are deleted from the next drain on stay" in finding["found"]
    erp.run("delete from orders where id = 1")
    datops("drain")
    assert [one for one in datops("preflight") if one["what"] == "bronze.erp_orders"] == []
    file.write_text(soft.replace("orders: {}", "orders: {deletes: hard}"))
    (finding,) = [one for one in datops("preflight") if one["what"] == "bronze.erp_orders"]
    assert (finding["verdict"], "1 marked row(s) leave for good" in finding["found"]) == ("warn", True)
    datops("drain")
    erp.require_equal()


OPS = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from(["delete", "put", "touch", "move", "grow", "truncate"]),
            st.integers(1, 3),
            st.integers(1, 4),
        ),
        min_size=1,
        max_size=4,
    ),
    min_size=4,
    max_size=12,
)


class Model:
    """What `deletes: soft` promises, in plain Python: each change counts."""

    def __init__(self) -> None:
        self.live: dict[int, tuple[str, str]] = dict.fromkeys((1, 2, 3), ("v", "b"))
        self.marked: dict[int, tuple[str, str]] = {}

    def _put(self, key: int, row: tuple[str, str]) -> None:
        self.live[key] = row
        self.marked.pop(key, None)

    def _drop(self, key: int) -> None:
        self.marked[key] = self.live.pop(key)

    def do(self, op: str, key: int, other: int, number: int) -> str:
        """Do one operation; returns it as SQL for the source."""
        value, big = f"v{number}", f"b{number}"
        if op == "put":
            if key in self.live:
                big = self.live[key][1]
            self._put(key, (value, big))
            return (
                f"insert into t values ({key}, '{value}', repeat('b{number}', 2500))"
                " on conflict (id) do update set v = excluded.v"
            )
        if op in ("touch", "grow") and key in self.live:
            was = self.live[key]
            self.live[key] = (value, was[1]) if op == "touch" else (was[0], big)
            said = f"v = '{value}'" if op == "touch" else f"big = repeat('{big}', 2500)"
            return f"update t set {said} where id = {key}"
        if op == "delete" and key in self.live:
            self._drop(key)
            return f"delete from t where id = {key}"
        if op == "move" and key in self.live and other not in self.live:
            row = self.live[key]
            self._drop(key)
            self._put(other, row)
            return f"update t set id = {other} where id = {key}"
        if op == "truncate":
            for one in list(self.live):
                self._drop(one)
            return "truncate t"
        return "select 1"

    def lose(self, there: set[int]) -> None:
        """A copy lacks what is not there."""
        for key in set(self.live) - there:
            self._drop(key)


def require_as_model(
    followed: Followed, transactions: list[list[tuple[str, int, int]]], steps: list[str], logged: bool
) -> None:
    """Do the operations in the source and in the model, with drains and copies between; both end the same."""
    conn = followed.warehouse.conn
    followed.run("drop table if exists t cascade; create table t (id int primary key, v text, big text)")
    followed.run("alter table t alter big set storage external")
    followed.run("insert into t select n, 'v', repeat('b', 2500) from generate_series(1, 3) n")
    conn.execute("drop table if exists silver.erp_t_history, silver.erp_t_history__copy")
    conn.execute("delete from datops.stream_histories")
    if conn.execute("select to_regclass('bronze.erp_t')").fetchone() != (None,):
        conn.execute("truncate bronze.erp_t")
    declare(followed, soft=True, history=logged, logged=logged)
    followed.snapshot()
    model, known = Model(), []
    for number, operations in enumerate(transactions):
        statements = [model.do(*operation, number * 10 + place) for place, operation in enumerate(operations)]
        followed.run(f"begin; {'; '.join(statements)}; commit")
        step = steps[number % len(steps)]
        if step in ("drain", "resync"):
            followed.drain()
            if logged:
                tell_history(conn, "erp", "t", {})
        if step == "resync":
            followed.snapshot()
        known.append((*source_now(followed), source_columns(followed)))
    followed.drain()
    expected = tuple(
        {(str(key), v, big * 2500) for key, (v, big) in rows.items()} for rows in (model.live, model.marked)
    )
    assert held(followed) == expected
    there = set(followed.rows(followed.source, sql.Identifier("public", "t"), ["id", "v", "big"]))
    assert held(followed)[0] == there
    if not logged:
        return
    tell_history(conn, "erp", "t", {})
    for place, rows, columns in known:
        assert as_of(followed, place, columns) == rows, place


STEPS = st.lists(st.sampled_from(["drain", "drain", "wait", "resync"]), min_size=1, max_size=5)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(transactions=OPS, steps=STEPS, logged=st.booleans())
def test_whatever_is_done_the_mirror_is_as_the_model(
    followed: Followed, transactions: list[list[tuple[str, int, int]]], steps: list[str], logged: bool
) -> None:
    """Live rows are the source, marked ones have their last values, the history is what the source was."""
    require_as_model(followed, transactions, steps, logged)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(transactions=OPS, steps=STEPS, logged=st.booleans())
def test_whatever_is_done_the_mirror_is_as_the_model_at_length(
    followed: Followed, transactions: list[list[tuple[str, int, int]]], steps: list[str], logged: bool
) -> None:
    """The same, for longer than CI has time."""
    require_as_model(followed, transactions, steps, logged)
