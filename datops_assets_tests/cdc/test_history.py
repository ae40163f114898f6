"""History (SCD2): as of any commit it is what the source was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from datops_assets.cdc import ChangeStream, StreamedTable, Told, tell_history
from datops_assets.components.streams.component import stream_definitions
from datops_assets.errors import DeclarationError
from datops_assets_tests.cdc.conftest import Followed
from datops_assets_tests.cdc.test_stream_component import datops, document, erp

__all__ = ["erp"]

KEPT = StreamedTable("t", "public", "t", history=True)
Row = tuple[str | None, ...]


def keep(followed: Followed) -> None:
    """Follow the table `t` with its history, from a copy on."""
    followed.stream = ChangeStream("erp", followed.stream.slot, followed.stream.publication, (KEPT,))
    followed.snapshot()


def tell(followed: Followed, most: int = 1000) -> Told:
    return tell_history(followed.warehouse.conn, "erp", "t", {}, most=most)


def versions(followed: Followed, columns: str) -> list[tuple[Any, ...]]:
    query = f"select {columns} from silver.erp_t_history order by _from_lsn, id::text, _to_lsn"
    return followed.warehouse.conn.execute(query).fetchall()


def source_now(followed: Followed) -> tuple[str, list[Row]]:
    """The place in the log, and all rows as text; nobody else writes there."""
    (place,) = followed.source.execute("select pg_current_wal_insert_lsn()::text").fetchone()  # type: ignore[misc]
    columns = source_columns(followed)
    return place, followed.rows(followed.source, sql.Identifier("public", "t"), columns)


def source_columns(followed: Followed) -> list[str]:
    query = (
        "select attname from pg_attribute where attrelid = 't'::regclass and attnum > 0 and not attisdropped"
    )
    return [name for (name,) in followed.source.execute(query + " order by attnum")]


def as_of(followed: Followed, place: str, columns: list[str]) -> list[Row]:
    texts = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in columns)
    query = sql.SQL(
        "select {} from silver.erp_t_history where _from_lsn <= {p} and (_to_lsn is null or _to_lsn > {p})"
    ).format(texts, p=sql.SQL("{}::pg_lsn").format(sql.Literal(place)))
    rows = followed.warehouse.conn.execute(query).fetchall()
    return sorted(rows, key=lambda row: tuple((value is None, value or "") for value in row))


@pytest.fixture
def told(followed: Followed) -> Followed:
    """A table with two rows whose history begins with its first copy."""
    followed.run("create table t (id int primary key, v text, big text)")
    followed.run("alter table t alter big set storage external")
    followed.run("insert into t select n, 'v' || n, repeat('b' || n, 3000) from generate_series(1, 2) n")
    keep(followed)
    return followed


def test_a_version_for_each_state_and_none_for_those_within_a_transaction(told: Followed) -> None:
    told.run("begin; update t set v = 'never' where id = 1; update t set v = 'w' where id = 1; commit")
    told.run("delete from t where id = 2")
    told.run("insert into t values (2, 'again', null)")
    told.run("begin; insert into t values (9, 'x', null); delete from t where id = 9; commit")
    told.drain()
    done = tell(told)
    assert (done.changes, done.begun, done.ended) == (6, 2, 2)
    assert versions(
        told, "id, v, _op::text, _is_current, _to_lsn is null, _valid_to is null, length(big)"
    ) == [
        (1, "v1", "s", False, False, False, 6000),
        (2, "v2", "s", False, False, False, 6000),
        (1, "w", "u", True, True, True, 6000),
        (2, "again", "i", True, True, True, None),
    ]
    assert tell(told).changes == 0
    (ordered,) = told.warehouse.conn.execute(
        "select bool_and(_valid_from <= coalesce(_valid_to, 'infinity')) from silver.erp_t_history"
    ).fetchone()  # type: ignore[misc]
    assert ordered


def test_a_moved_key_takes_its_left_out_values_with_it(told: Followed) -> None:
    """Case 17: what an update leaves out stands under the old key, also when keys are swapped."""
    told.run("begin; update t set id = -1 where id = 1; update t set id = 1 where id = 2;")
    told.run("update t set id = 2 where id = -1; update t set v = 'moved' where id = 2; commit")
    told.drain()
    tell(told)
    assert versions(told, "id, v, left(big, 2), _is_current")[2:] == [
        (1, "v2", "b2", True),
        (2, "moved", "b1", True),
    ]


def test_a_truncate_ends_every_version(told: Followed) -> None:
    told.run(
        "begin; insert into t values (3, 'c', null); truncate t; insert into t values (1, 'new', null); commit"
    )
    told.drain()
    tell(told)
    assert versions(told, "id, v, _is_current") == [(1, "v1", False), (2, "v2", False), (1, "new", True)]


def test_history_begins_with_the_mirror_where_it_was_asked_for_later(followed: Followed) -> None:
    followed.run("create table t (id int primary key, v text); insert into t values (1, 'a')")
    followed.follow("t")
    followed.snapshot()
    followed.run("update t set v = 'b'")
    followed.drain()
    assert tell(followed).begun == 1
    followed.run("update t set v = 'c'")
    followed.drain()
    assert (tell(followed).begun, versions(followed, "v, _op::text")) == (1, [("b", "s"), ("c", "u")])


def test_a_copy_anew_ends_what_it_lacks_and_begins_what_is_new(told: Followed) -> None:
    """A resync loses the log between; the history goes on from the copy."""
    told.run("update t set v = 'seen' where id = 1")
    told.drain()
    told.run("delete from t where id = 2; insert into t values (3, 'c', null)")
    told.snapshot()
    tell(told)
    assert versions(told, "id, v, _op::text, _is_current") == [
        (1, "v1", "s", False), (2, "v2", "s", False), (1, "seen", "u", True), (3, "c", "s", True),
    ]  # fmt: skip


def test_columns_that_come_go_and_change_their_type(told: Followed) -> None:
    """Cases 55 and 57: a hole is told by the columns that the table had at that place."""
    told.run("alter table t drop column v")
    told.run("alter table t add column n int")
    told.run("update t set n = 1 where id = 1")
    told.drain()
    tell(told)
    place, rows = source_now(told)
    assert as_of(told, place, ["id", "big", "n"]) == rows
    told.run("alter table t alter column n type text using 'n' || n")
    told.run("update t set n = 'other' where id = 2")
    told.drain()
    tell(told)
    place, rows = source_now(told)
    assert as_of(told, place, ["id", "big", "n"]) == rows
    assert [name for name in told.warehouse.conn.execute("select * from silver.erp_t_history").description or ()
            if name.name.startswith("n_until_")]  # fmt: skip


def test_another_key_ends_all_versions(told: Followed) -> None:
    told.run(
        "update t set v = 'x' || id; alter table t drop constraint t_pkey; alter table t add primary key (v)"
    )
    told.run("update t set id = 7 where v = 'x1'")
    told.drain()
    tell(told)
    place, rows = source_now(told)
    assert as_of(told, place, ["id", "v", "big"]) == rows


def test_a_killed_telling_tells_nothing_twice(told: Followed) -> None:
    told.run("update t set v = 'w'")
    told.run("update t set v = 'x'")
    told.drain()
    with pytest.raises(ZeroDivisionError), told.warehouse.conn.transaction():
        tell_history_in_pieces(told)
        raise ZeroDivisionError
    assert tell(told).changes == 4
    assert len(versions(told, "id")) == 6


def tell_history_in_pieces(followed: Followed) -> None:
    assert tell(followed, most=1).changes == 4


def test_the_document_asks_for_a_history(erp: Followed, project: Path) -> None:
    file = project / "stream.yaml"
    file.write_text(file.read_text().replace("orders: {}", "orders: {history: true, rename: {note: remark}}"))
    datops("snapshot")
    erp.run("update orders set note = 'b'")
    with dg.DagsterInstance.ephemeral() as instance:
        job = stream_definitions(document(project)).resolve_job_def("erp_stream")
        result = job.execute_in_process(instance=instance)
        events = {e.asset_key.to_user_string(): e for e in result.get_asset_materialization_events()}
    metadata = events["silver/erp/orders_history"].materialization.metadata
    assert [metadata[name].value for name in ("changes", "versions_begun", "versions_ended")] == [1, 1, 1]
    erp.run("delete from orders")
    datops("drain")
    query = "select remark, _op::text, _is_current from silver.erp_orders_history order by _from_lsn"
    assert erp.warehouse.conn.execute(query).fetchall() == [("a", "s", False), ("b", "u", False)]


def test_a_history_needs_its_name_for_itself(erp: Followed, project: Path) -> None:
    file = project / "stream.yaml"
    file.write_text(file.read_text().replace("orders: {}", "orders: {history: true}\n  orders_history: {}"))
    with pytest.raises(DeclarationError, match="orders_history is how the history of orders is called"):
        document(project)


WRITES = st.lists(
    st.sampled_from(
        [
            "insert into t values ({a}, 'i{n}', repeat('b{n}', 2500)) on conflict (id) do update set v = excluded.v",
            "update t set v = 'u{n}' where id = {a}",
            "update t set v = 'u{n}' where id = {a}",
            "update t set big = repeat('c{n}', 2500) where id = {a}",
            "delete from t where id = {a}",
            "update t set id = {b} where id = {a} and not exists (select from t where id = {b})",
            "update t set v = v",
            "truncate t",
        ]
    ),
    min_size=1,
    max_size=5,
)
STEPS = st.lists(
    st.one_of(
        WRITES,
        st.sampled_from([["drain"], ["tell"], ["drain"], ["tell"], ["resync"], ["default"], ["drop"]]),
    ),
    min_size=4,
    max_size=16,
)


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, most=st.sampled_from([1, 3, 1000]), data=st.data())
def test_as_of_any_commit_the_history_is_what_the_source_was(
    followed: Followed, steps: list[list[str]], most: int, data: st.DataObject
) -> None:
    """However changes, drains, copies and tellings come one after the other."""
    require_true_history(followed, steps, most, data)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, most=st.sampled_from([1, 3, 1000]), data=st.data())
def test_as_of_any_commit_the_history_is_what_the_source_was_at_length(
    followed: Followed, steps: list[list[str]], most: int, data: st.DataObject
) -> None:
    """The same, for longer than CI has time."""
    require_true_history(followed, steps, most, data)


def require_true_history(followed: Followed, steps: list[list[str]], most: int, data: st.DataObject) -> None:
    """Do the steps on a table made anew, then hold the history against what the source was after each commit."""
    conn = followed.warehouse.conn
    followed.run("drop table if exists t cascade; create table t (id int primary key, v text, big text)")
    followed.run(
        "alter table t alter big set storage external; insert into t values (1, 'a', repeat('a', 5000))"
    )
    conn.execute("drop table if exists silver.erp_t_history, silver.erp_t_history__copy")
    conn.execute("delete from datops.stream_histories")
    keep(followed)
    known, drained = [(*source_now(followed), source_columns(followed))], 1
    for number, step in enumerate(steps):
        if step == ["drain"]:
            followed.drain()
            drained = len(known)
        elif step == ["tell"]:
            tell(followed, most)
        elif step == ["resync"]:
            followed.snapshot()
            known = [*known[:drained], (*source_now(followed), source_columns(followed))]
            drained = len(known)
        elif step in (["default"], ["drop"]):  # what a copy tells is true from the copy on
            column = f"d{number}"
            added = [name for name in source_columns(followed) if name.startswith("d")]
            if step == ["default"]:
                followed.run(f"alter table t add column {column} text default 'd'")
            elif added:
                followed.run(f"alter table t drop column {added[0]}")
            followed.drain()
            known.append((*source_now(followed), source_columns(followed)))
            drained = len(known)
        else:
            keys = [data.draw(st.integers(1, 3)) for _ in range(2)]
            followed.run(
                "begin; " + "; ".join(one.format(a=keys[0], b=keys[1], n=number) for one in step) + "; commit"
            )
            known.append((*source_now(followed), source_columns(followed)))
    followed.drain()
    tell(followed, most)
    for place, rows, columns in known:
        assert as_of(followed, place, columns) == rows, place
    (overlaps,) = conn.execute(
        "select count(*) from silver.erp_t_history a join silver.erp_t_history b on a.id = b.id and a.ctid < b.ctid"
        " and a._from_lsn < coalesce(b._to_lsn, 'FFFFFFFF/0') and b._from_lsn < coalesce(a._to_lsn, 'FFFFFFFF/0')"
    ).fetchone()  # type: ignore[misc]
    assert overlaps == 0
