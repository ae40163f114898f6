"""Which tables and rows are followed: identities, keys, partitions, filters, what is never published."""

from __future__ import annotations

from dataclasses import replace

import pytest

from datops_assets.cdc import StreamedTable
from datops_assets.errors import SourceRefusedError
from datops_assets_tests.cdc.conftest import Followed


@pytest.mark.cdc_case(18)
@pytest.mark.parametrize("identity", ["default", "full", "using index t_other"])
def test_every_identity_that_names_a_row(followed: Followed, identity: str) -> None:
    """Case 18."""
    followed.run(
        "create table t (b int not null, id int primary key, a text); create unique index t_other on t (b)"
    )
    followed.run(f"alter table t replica identity {identity}; insert into t values (1, 1, 'x'), (2, 2, 'y')")
    followed.follow("t")
    followed.snapshot()
    followed.run(
        "update t set a = 'z' where id = 1; update t set b = 20, id = 20 where id = 2;"
        " insert into t values (3, 3, null)"
    )
    followed.run("delete from t where id = 1")
    followed.drain()
    followed.require_equal()


@pytest.mark.cdc_case(16)
def test_a_key_in_another_order_than_the_columns(followed: Followed) -> None:
    """Case 16."""
    followed.run(
        "create table t (a int, b text, c int, v text, primary key (c, a)); insert into t values (1, 'x', 2, 'v')"
    )
    followed.follow("t")
    followed.snapshot()
    followed.run(
        "insert into t values (2, 'y', 1, 'w'), (1, 'z', 1, 'w'); update t set c = 9 where a = 1 and c = 2"
    )
    followed.run("delete from t where a = 2")
    followed.drain()
    followed.require_equal()


@pytest.mark.cdc_case(19)
def test_a_table_without_a_key_is_refused_by_name(followed: Followed) -> None:
    """Case 19."""
    followed.run("create table t (a int); alter table t replica identity full")
    followed.follow("t")
    with pytest.raises(
        SourceRefusedError, match=r"public\.t has no key to tell its rows apart; give it a primary key"
    ):
        followed.snapshot()


def test_a_table_with_nothing_but_its_key(followed: Followed) -> None:
    followed.run("create table t (a int, b int, primary key (a, b)); insert into t values (1, 1)")
    followed.follow("t")
    followed.snapshot()
    followed.run("insert into t values (1, 2); delete from t where b = 1; update t set b = 7")
    followed.drain()
    followed.require_equal()


@pytest.mark.cdc_case(20)
def test_truncates_of_several_tables(followed: Followed) -> None:
    """Case 20."""
    followed.run(
        "create table a (id int primary key); create table b (id int primary key references a, v text)"
    )
    followed.run(
        "insert into a select generate_series(1, 5); insert into b select n, 'x' from generate_series(1, 5) n"
    )
    followed.follow("a", "b")
    followed.snapshot()
    followed.run(
        "begin; insert into a values (6); truncate a, b restart identity; insert into a values (9); commit"
    )
    followed.run("truncate a cascade; insert into a values (1)")
    followed.drain()
    followed.require_equal()
    assert [op for (op,) in followed.log("a", "_op::text")] == ["i", "t", "i", "t", "i"]


@pytest.mark.cdc_case(21, 51)
def test_what_does_not_concern_the_stream_moves_its_slot_all_the_same(followed: Followed) -> None:
    """Cases 21 and 51: rolled back, empty, other tables; an idle database."""
    followed.run("create table t (id int primary key); create table other (id int)")
    followed.follow("t")
    before = followed.snapshot().lsn
    followed.run("begin; insert into t values (1); rollback; begin; commit")
    followed.run(
        "begin; insert into t values (2); savepoint s; insert into t values (3); rollback to s; commit"
    )
    followed.run("insert into other select generate_series(1, 1000)")
    assert followed.drain().tables == {"t": 1}
    followed.require_equal()
    assert followed.drain().changes == 0
    (moved,) = followed.source.execute(
        "select confirmed_flush_lsn > %s::pg_lsn from pg_replication_slots where slot_name = %s",
        (before, followed.stream.slot),
    ).fetchone()
    assert moved


@pytest.mark.cdc_case(22)
def test_every_way_to_write(followed: Followed) -> None:
    """Case 22."""
    followed.run("create table t (id int primary key, v text, n int default 0)")
    followed.run(
        "create function f() returns trigger language plpgsql as $$ begin"
        " update t set n = n + 1 where id = new.id - 1; return new; end $$;"
        " create trigger tr after insert on t for each row execute function f()"
    )
    followed.follow("t")
    followed.snapshot()
    followed.run("insert into t values (1, 'a'), (2, 'b'), (3, 'c')")
    followed.run("insert into t values (1, 'x') on conflict (id) do update set v = excluded.v")
    followed.run(
        "merge into t using (values (2), (9)) s(id) on t.id = s.id when matched then delete"
        " when not matched then insert (id, v) values (s.id, 'merged')"
    )
    with followed.source.cursor() as cursor, cursor.copy("copy t (id, v) from stdin") as copy:
        copy.write("50\tcopied\n51\tcopied\n")
    followed.run(
        "set session_replication_role = replica; update t set v = 'r' where id = 1; reset session_replication_role"
    )
    followed.drain()
    followed.require_equal()


@pytest.mark.cdc_case(24)
def test_names_that_need_quotes_in_two_schemas(followed: Followed) -> None:
    """Case 24."""
    followed.run(
        'create schema "My Schema"; create table "My Schema".t1 ("Id" int primary key, "a.b%s" text)'
    )
    followed.run("insert into \"My Schema\".t1 values (1, 'x')")
    followed.follow("My Schema.t1")
    followed.snapshot()
    followed.run('update "My Schema".t1 set "a.b%s" = \'y\'; insert into "My Schema".t1 values (2, null)')
    followed.drain()
    followed.require_equal()


@pytest.mark.cdc_case(26)
def test_generated_and_identity_columns(followed: Followed) -> None:
    """Case 26: what the source computes is not sent, and nobody invents it."""
    followed.run(
        "create table t (id int generated always as identity primary key, a int,"
        " double int generated always as (a * 2) stored, b text)"
    )
    followed.run("insert into t (a, b) values (1, 'x')")
    followed.follow("t")
    followed.snapshot()
    followed.run("insert into t (a, b) values (2, 'y'); update t set a = 5 where id = 1")
    followed.drain()
    followed.require_equal()


@pytest.mark.cdc_case(29, 30, 31, 32)
def test_partitions_arrive_as_one_table(followed: Followed) -> None:
    """Cases 29 to 32: a row that moves, a partition that comes and goes, columns in another order."""
    followed.run("create table t (id int, day date, v text, primary key (id, day)) partition by range (day)")
    followed.run("create table t1 partition of t for values from ('2026-01-01') to ('2026-02-01')")
    followed.run("create table t2 (v text, day date not null, id int not null)")
    followed.run("alter table t attach partition t2 for values from ('2026-02-01') to ('2026-03-01')")
    followed.run("insert into t values (1, '2026-01-05', 'a'), (2, '2026-02-05', 'b')")
    followed.follow("t")
    assert followed.snapshot().rows == {"t": 2}
    followed.run("update t set day = '2026-02-07' where id = 1; insert into t values (3, '2026-02-08', 'c')")
    followed.run("create table t3 partition of t for values from ('2026-03-01') to ('2026-04-01')")
    followed.run("insert into t values (4, '2026-03-01', 'd'); update t set v = 'e' where id = 2")
    followed.drain()
    followed.require_equal()
    followed.run("truncate t; insert into t values (9, '2026-01-01', 'z')")
    followed.drain()
    followed.require_equal()


@pytest.mark.cdc_case(23)
def test_a_wide_table(followed: Followed) -> None:
    """Case 23: as many columns as the log's own leave room for."""
    names = [f"c{number}" for number in range(1500)]
    followed.run(f"create table t (id int primary key, {', '.join(f'{name} smallint' for name in names)})")
    followed.run("insert into t (id, c0, c1499) values (1, 1, 2)")
    followed.follow("t")
    followed.snapshot()
    followed.run("insert into t (id, c7) values (2, 7); update t set c1499 = 3 where id = 1")
    followed.drain()
    followed.require_equal()


@pytest.mark.cdc_case(23)
def test_a_large_value(followed: Followed) -> None:
    """Case 23."""
    followed.run("create table t (id int primary key, v bytea, n int); insert into t values (1, 'x', 0)")
    followed.follow("t")
    followed.snapshot()
    followed.run(
        "insert into t select 2, convert_to(repeat('abcdefghij', 11000000), 'utf8'), 0; update t set n = 1"
    )
    followed.drain()
    followed.require_equal()


@pytest.mark.cdc_case(27)
def test_a_publication_of_somebody_else_keeps_its_columns_and_rows(followed: Followed) -> None:
    """Case 27: snapshot and stream agree on what is published."""
    followed.run("create table t (id int, a text, secret text, n int, primary key (id, n))")
    followed.run("insert into t values (1, 'a', 's', 1), (2, 'b', 's', -1)")
    followed.run("create publication datops_erp for table t (id, a, n) where (n > 0)")
    followed.follow("t")
    followed.snapshot()
    mirror = "select id, a, n from bronze.erp_t order by id"
    assert followed.warehouse.fetch(mirror) == [(1, "a", 1)]
    followed.run(
        "update t set n = 5 where id = 2; update t set n = -5 where id = 1; insert into t values (3, 'c', 's', 3)"
    )
    followed.drain()
    assert followed.warehouse.fetch(mirror) == [(2, "b", 5), (3, "c", 3)]
    held = "select count(*) from information_schema.columns where table_schema = 'bronze' and column_name = 'secret'"
    assert followed.warehouse.fetch(held) == [(0,)]


@pytest.mark.cdc_case(23)
def test_a_table_of_1600_columns(followed: Followed) -> None:
    """Its log has no room for ours: refused by name, and followed with fewer columns."""
    names = [f"c{number}" for number in range(1599)]
    columns = ", ".join(f'{name} "char"' for name in names)
    followed.run(f"create table t (id int primary key, {columns})")
    followed.follow("t")
    with pytest.raises(
        SourceRefusedError, match=r"public\.t has 1600 columns, and its log has room for 1594"
    ):
        followed.snapshot()
    followed.run(
        f"drop publication datops_erp; create publication datops_erp for table t (id, {', '.join(names[:1593])})"
    )
    followed.run("insert into t (id, c0, c1592) values (1, 'a', 'b')")
    followed.snapshot()
    followed.run("update t set c1592 = 'c'; insert into t (id) values (2)")
    followed.drain()
    assert followed.warehouse.fetch("select id, c0::text, c1592::text from bronze.erp_t order by id") == [
        (1, "a", "c"), (2, None, None),
    ]  # fmt: skip


@pytest.mark.cdc_case(24)
def test_a_table_of_any_name_and_the_same_name_in_two_schemas(followed: Followed) -> None:
    names = [
        ("public", "t"),
        ("other", "t"),
        ("public", "Order By"),
        ("public", "sélect.%s"),
        ("Ünï ", "x" * 63),
    ]
    for schema, name in names:
        followed.run(
            f'create schema if not exists "{schema}"; create table "{schema}"."{name}" (id int primary key, v text)'
        )
        followed.run(f'insert into "{schema}"."{name}" values (1, \'{name[:5]}\')')
    tables = tuple(StreamedTable(f"t{number}", *where) for number, where in enumerate(names))
    followed.stream = replace(followed.stream, tables=tables)
    followed.snapshot()
    for schema, name in names:
        followed.run(f'update "{schema}"."{name}" set v = \'{schema}\'')
        followed.run(f'insert into "{schema}"."{name}" values (2, \'new\'); truncate "{schema}"."{name}"')
        followed.run(f'insert into "{schema}"."{name}" values (3, \'last\')')
    followed.drain()
    followed.require_equal()


@pytest.mark.cdc_case(24)
def test_columns_that_are_called_as_ours(followed: Followed) -> None:
    names = [
        "_commit_lsn",
        "_seq",
        "_op",
        "_xid",
        "_committed_at",
        "_unchanged",
        "__op",
        "datops_op",
        "op",
        "datops_hole_1",
    ]
    followed.run(f"create table t (id int primary key, {', '.join(f'{name} text' for name in names)})")
    followed.run("; ".join(f"alter table t alter {name} set storage external" for name in names))
    followed.run(f"insert into t select 1, {', '.join(['repeat(md5(random()::text), 100)'] * len(names))}")
    followed.follow("t")
    followed.snapshot()
    followed.run(
        "update t set _op = 'x'; update t set id = 2; update t set datops_op = null; insert into t values (3)"
    )
    followed.drain()
    followed.require_equal()


@pytest.mark.cdc_case(26)
def test_generated_columns_that_the_publication_sends(followed: Followed) -> None:
    """PostgreSQL 18 can: then they are columns like others."""
    followed.run("create table t (id int primary key, a int, double int generated always as (a * 2) stored)")
    followed.run("create sequence s; insert into t values (1, 1), (2, 2)")
    followed.run("create publication datops_erp for table t with (publish_generated_columns = stored)")
    followed.follow("t")
    followed.snapshot()
    followed.run("insert into t values (3, 3); update t set a = 10 where id = 1; select nextval('s')")
    followed.drain()
    assert followed.warehouse.fetch("select * from bronze.erp_t order by id") == [
        (1, 10, 20),
        (2, 2, 4),
        (3, 3, 6),
    ]


@pytest.mark.cdc_case(29)
@pytest.mark.parametrize("name", ["t", "middle", "leaf"])
def test_any_level_of_partitions(followed: Followed, name: str) -> None:
    followed.run("create table t (id int, v text, primary key (id)) partition by range (id)")
    followed.run("create table middle partition of t for values from (0) to (100) partition by range (id)")
    followed.run("create table leaf partition of middle for values from (0) to (50)")
    followed.run("create table leaf2 partition of middle for values from (50) to (100)")
    followed.run(
        "create table rest partition of t default; insert into t select n, 'a' from generate_series(1, 200, 9) n"
    )
    followed.follow(name)
    followed.snapshot()
    followed.require_equal()
    followed.run(
        "update t set v = 'b' where id % 2 = 0; insert into t values (20, 'new'), (70, 'new'), (170, 'new')"
    )
    followed.run("update t set id = id + 31 where id < 40; delete from t where id > 150")
    followed.drain()
    followed.require_equal()


PARTITIONED = (
    "create table t (id int primary key, v text) partition by range (id);"
    "create table t1 partition of t for values from (0) to (10);"
    "create table t2 partition of t for values from (10) to (20);"
    "insert into t select n, 'a' from generate_series(0, 19) n"
)


@pytest.mark.cdc_case(30)
@pytest.mark.parametrize(
    "dml", ["update t set v = 'later' where id = 1", pytest.param("select 1", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "ddl",
    [
        "alter table t detach partition t2",
        pytest.param("drop table t2", marks=pytest.mark.slow),
        "truncate t2",
        pytest.param("truncate t; insert into t values (3, 'new')", marks=pytest.mark.slow),
        "create table t3 (id int primary key, v text); insert into t3 values (25, 'came along');"
        " alter table t attach partition t3 for values from (20) to (30)",
        "begin; create table t3 (like t including all); insert into t3 values (25, 'came along');"
        " alter table t attach partition t3 for values from (20) to (30); commit",
        "create table m (id int primary key, v text) partition by range (id);"
        " create table m1 partition of m for values from (20) to (25); insert into m values (21, 'came along');"
        " alter table t attach partition m for values from (20) to (30)",
        "alter table t detach partition t2; update t2 set v = 'alone';"
        " alter table t attach partition t2 for values from (10) to (20)",
    ],
)
def test_rows_that_come_and_go_with_partitions(followed: Followed, ddl: str, dml: str) -> None:
    """The log says nothing of them: the table is copied anew."""
    followed.run(PARTITIONED)
    followed.follow("t")
    followed.snapshot()
    followed.run("update t set v = 'before' where id in (2, 12)")
    for statement in [ddl] if ddl.startswith("begin") else ddl.split(";"):
        followed.run(statement)
    followed.run(dml)
    assert followed.drain().copied == ["t"]
    followed.require_equal()
    followed.run("insert into t values (4, 'x') on conflict (id) do update set v = 'y'")
    assert followed.drain().copied == []
    followed.require_equal()


@pytest.mark.cdc_case(30)
def test_a_partition_that_is_made_costs_no_copy(followed: Followed) -> None:
    followed.run(PARTITIONED)
    followed.follow("t")
    followed.snapshot()
    followed.run(
        "create table t3 partition of t for values from (20) to (30); insert into t values (25, 'c')"
    )
    assert followed.drain().copied == []
    followed.run(
        "insert into t values (26, 'd'); create table t4 partition of t for values from (30) to (40)"
    )
    assert followed.drain().copied == []
    followed.require_equal()
    followed.run("truncate t3")
    assert followed.drain().copied == ["t"]
    followed.require_equal()
