"""`deletes: soft` by queries: what a look misses stays, with the values that the look before it saw."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from datops_assets.cdc.marks import marks_of
from datops_assets_tests.cdc.query.conftest import Queried

Rows = dict[int, str]


def declare(queried: Queried, *, soft: bool, cursor: str | None = None) -> None:
    """Say in the document what becomes of deleted rows."""
    queried.follow(cursor=cursor)
    tables = tuple(replace(one, keeps_deleted=soft) for one in queried.stream.tables)
    queried.stream = replace(queried.stream, tables=tables)


def held(queried: Queried) -> tuple[Rows, Rows]:
    """The rows of the mirror that live, and those that are marked."""
    rows = [(int(id_), note, lives) for id_, note, lives in queried.mirror("id, note, _deleted_at is null")]
    live = {id_: note for id_, note, lives in rows if lives}
    return live, {id_: note for id_, note, lives in rows if not lives}


def test_a_row_that_is_gone_stays_marked_and_lives_when_it_comes_again(source: Queried) -> None:
    source.run("create table orders (id int primary key, note varchar(20))")
    source.run("insert into orders values (1, 'a'), (2, 'b'), (3, 'c')")
    declare(source, soft=True)
    source.snapshot()
    source.run("delete from orders where id = 1")
    assert source.drain().changes == 1
    marked = source.mirror("id, note, _deleted_at, _deleted_look, _deleted_seq")[0]
    (change,) = source.log("id, note, _seen_at, _look, _seq")
    assert marked == change
    assert source.drain().changes == 0
    source.run("insert into orders values (1, 'again')")
    source.run("delete from orders where id = 2")
    assert source.drain().changes == 2
    assert held(source) == ({1: "again", 3: "c"}, {2: "b"})
    assert [op for op, _ in source.log()] == ["d", "d", "i"]
    source.run("delete from orders where id = 3")
    source.snapshot()
    assert held(source) == ({1: "again"}, {2: "b", 3: "c"})
    assert [by_copy for _, by_copy in source.mirror("id, _deleted_seq is null")] == [True, False, True]


def test_a_cursor_finds_what_comes_again_where_a_marked_row_stands(postgres: Queried) -> None:
    postgres.run("create table orders (id int primary key, note text, at int)")
    postgres.run("insert into orders values (1, 'a', 1), (2, 'b', 2)")
    declare(postgres, soft=True, cursor="at")
    postgres.snapshot()
    postgres.run("delete from orders where id = 2")
    postgres.drain()
    postgres.run("insert into orders values (2, 'back', 3)")
    postgres.drain()
    assert held(postgres) == ({1: "a", 2: "back"}, {})


def test_columns_that_come_go_and_change_leave_marked_rows_as_they_were(postgres: Queried) -> None:
    postgres.run("create table orders (id int primary key, note text, n text)")
    postgres.run("insert into orders values (1, 'a', 'x'), (2, 'b', '2')")
    declare(postgres, soft=True)
    postgres.snapshot()
    postgres.run("delete from orders where id = 1")
    postgres.drain()
    postgres.run("alter table orders alter n type int using 7; alter table orders drop column note")
    postgres.run(
        "alter table orders add column note text default 'new'; alter table orders add _deleted_at int"
    )
    postgres.drain()
    marks = marks_of(postgres.warehouse.conn, sql.Identifier("bronze", "erp_orders"))
    assert marks is not None and marks.prefix == "__"
    rows = postgres.mirror("id, note, n, _deleted_at, __deleted_at is null")
    assert rows == [(1, "a", None, None, False), (2, "new", 7, None, True)]
    aside = next(
        name
        for (name,) in postgres.warehouse.fetch(
            "select attname from pg_attribute where attrelid = 'bronze.erp_orders'::regclass"
            " and attname like 'n\\_until%%'"
        )
    )
    assert postgres.mirror(f"id, {aside}") == [(1, "x"), (2, None)]


def test_deletes_become_soft_and_hard_again(postgres: Queried) -> None:
    postgres.run("create table orders (id int primary key, note text)")
    postgres.run("insert into orders values (1, 'a'), (2, 'b'), (3, 'c')")
    declare(postgres, soft=False)
    postgres.snapshot()
    declare(postgres, soft=True)
    postgres.run("delete from orders where id = 1")
    postgres.drain()
    assert held(postgres) == ({2: "b", 3: "c"}, {1: "a"})
    declare(postgres, soft=False)
    postgres.run("delete from orders where id = 2")
    postgres.drain()
    assert postgres.mirror() == [(3, "c")]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 4)),
        st.tuples(st.just("put"), st.integers(1, 4)),
        st.tuples(st.just("delete"), st.integers(1, 4)),
        st.tuples(st.just("delete"), st.integers(1, 4)),
        st.tuples(st.just("clear"), st.just(0)),
        st.tuples(st.just("look"), st.just(0)),
        st.tuples(st.just("look"), st.just(0)),
        st.tuples(st.just("resync"), st.just(0)),
    ),
    min_size=4,
    max_size=20,
)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_whatever_happens_between_looks_what_is_gone_has_the_values_last_seen(
    sqlite: Queried, steps: list[tuple[str, int]]
) -> None:
    sqlite.run("drop table if exists orders; create table orders (id integer primary key, note text)")
    sqlite.warehouse.conn.execute("drop table if exists bronze.erp_orders")
    declare(sqlite, soft=True)
    sqlite.snapshot()
    there: Rows = {}
    live: Rows = {}
    marked: Rows = {}
    for number, (step, key) in enumerate([*steps, ("look", 0)]):
        if step == "put":
            there[key] = f"v{number}"
            sqlite.run(f"insert or replace into orders values ({key}, 'v{number}')")
        elif step == "delete":
            there.pop(key, None)
            sqlite.run(f"delete from orders where id = {key}")
        elif step == "clear":
            there.clear()
            sqlite.run("delete from orders")
        else:
            (sqlite.drain if step == "look" else sqlite.snapshot)()
            marked |= {one: note for one, note in live.items() if one not in there}
            marked = {one: note for one, note in marked.items() if one not in there}
            live = dict(there)
            assert held(sqlite) == (live, marked)
