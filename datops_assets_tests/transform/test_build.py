"""Building a table: at once or not at all, in a Python function too."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal

import psycopg
import pytest

from datops_assets.transform import FunctionError, StepError, TransformError

COLUMNS = {"id": "bigint", "k": "text", "n": "integer", "total": "numeric(12,2)"}
ROWS = [(1, "a", 5, Decimal("1.50")), (2, "", None, None), (3, None, 15, Decimal("-2.00"))]
HERE = "datops_assets_tests.transform.functions"


@pytest.fixture(autouse=True)
def rows(silver) -> None:
    """Three rows, nulls and an empty text among them."""
    silver.put("rows", COLUMNS, ROWS)


def made(silver, columns: str = "*") -> list[tuple]:
    """Rows of the built table."""
    return sorted(silver.conn.execute(f"select {columns} from silver.t_made").fetchall())


def test_a_rebuilt_table_takes_the_old_ones_place_and_keeps_its_grants_and_views(silver):
    first = silver.build({"select": ["id"]})
    assert first.rows == 3
    silver.conn.execute("create view silver.t_seen as select id from silver.t_made")
    silver.conn.execute("comment on table silver.t_made is 'kept'")
    second = silver.build({"filter": "n > 6"}, {"select": ["id", "n"]})
    assert (second.rows, second.columns) == (1, {"id": "bigint", "n": "integer"})
    assert silver.conn.execute("select * from silver.t_seen").fetchall() == [(3,)]
    entries = silver.conn.execute("select rows from datops.builds order by build_id").fetchall()
    assert entries == [(3,), (1,)]


def test_a_value_that_does_not_fit_leaves_the_table_as_it_was_and_is_not_repeated(silver):
    silver.build({"select": ["id"]})
    with pytest.raises(TransformError, match=r"t\.made: a value does not fit .*SQLSTATE 22P02") as failed:
        silver.build({"cast": {"k": "integer"}})
    assert "'a'" not in str(failed.value)
    assert made(silver) == [(1,), (2,), (3,)]
    assert silver.conn.execute("select count(*) from datops.builds").fetchall() == [(1,)]


def test_readers_never_see_a_table_that_is_missing_or_half_built(silver, warehouse):
    silver.build({"select": ["id"]})
    with warehouse.connect(autocommit=False) as reader:
        reader.execute("set transaction isolation level repeatable read")
        assert reader.execute("select count(*) from datops.builds").fetchone() == (1,)
        reader.rollback()
        for _ in range(5):
            silver.build({"select": ["id", "k"]})
            assert reader.execute("select count(*) from silver.t_made").fetchone() == (3,)
            reader.commit()


KILLED = """
import sys
from datops_assets.postgres import failpoints
from datops_assets.quality.swap import swap_in
from datops_assets.transform import StepDocument, build_statement, build_table, silver_table
import psycopg
url, name = sys.argv[1:]
failpoints.arm(name)
with psycopg.connect(url, autocommit=True) as conn:
    table = silver_table("t", "rows", {"id": "bigint", "k": "text"})
    statement = build_statement(table, [StepDocument.model_validate({"select": ["id", "k"]})], {})
    build_table(conn, "t", "made", statement, version="2", swap=swap_in)
"""


@pytest.mark.parametrize("failpoint", ["transform.built", "swap.renamed", "swap.done", "transform.swapped"])
def test_kill_9_anywhere_leaves_the_table_that_was_there(silver, warehouse, failpoint):
    silver.build({"select": ["id"]})
    died = subprocess.run([sys.executable, "-c", KILLED, warehouse.url, failpoint], timeout=60)
    assert died.returncode == -signal.SIGKILL
    assert made(silver) == [(1,), (2,), (3,)]
    assert silver.conn.execute("select version from datops.builds").fetchall() == [("1",)]
    silver.build({"select": ["id", "k"]})
    assert {row[:2] for row in made(silver)} == {(1, "a"), (2, ""), (3, None)}


def python(function: str, columns: dict[str, str], **more: object) -> dict[str, object]:
    """A step with a function of functions.py."""
    return {"python": {"function": f"{HERE}:{function}", "columns": columns, **more}}


@pytest.mark.parametrize("batch_rows", [1, 2, 100])
def test_a_function_gets_batches_and_its_frames_become_the_table(silver, batch_rows):
    columns = {"id": "bigint", "net": "numeric(12,3)", "said": "text"}
    silver.build(python("net", columns, batch_rows=batch_rows))
    rows = silver.conn.execute("select * from silver.t_made order by id").fetchall()
    assert rows == [(1, Decimal("0.750"), "a"), (2, None, ""), (3, Decimal("-1.000"), None)]


def test_a_function_that_needs_all_rows_gets_them_up_to_a_limit(silver):
    step = python("shares", {"id": "bigint", "share": "double"}, whole=True, most_rows=3)
    silver.build(step)
    assert made(silver)[0] == (1, 0.25)
    with pytest.raises(FunctionError, match=r"more than most_rows \(2\)"):
        silver.build(python("shares", {"id": "bigint", "share": "double"}, whole=True, most_rows=2))
    assert made(silver)[0] == (1, 0.25)


def test_values_of_every_type_come_back_from_a_function_as_they_went_in(silver):
    columns = {
        "i": "bigint", "s": "smallint", "t": "text", "b": "boolean", "d": "date", "ts": "timestamp",
        "tz": "timestamptz", "num": "numeric(20,6)", "x": "double", "u": "uuid", "j": "json", "y": "bytea",
    }  # fmt: skip
    row = (
        2**62, -3, 'a,"b"\nc', True, date(1999, 1, 2), datetime(2001, 2, 3, 4, 5, 6, 789012),
        datetime(2001, 2, 3, 4, 5, 6, 7, tzinfo=UTC), Decimal("12345678901234.567890"), 0.1,
        "00000000-0000-0000-0000-000000000001", '{"a": [1, null]}', b"\x00\xff",
    )  # fmt: skip
    kinds = columns | {"x": "double precision"}
    silver.put("all", kinds, [row, tuple(None for _ in row)])
    statement = silver.statement(python("moments", columns), first="all")
    from datops_assets.quality.swap import swap_in
    from datops_assets.transform import build_table

    build_table(silver.conn, "t", "made", statement, version="1", swap=swap_in)
    different = "select count(*) from (select i, s, t, b, d, ts, tz, num, x, u, y from silver.t_all except select i, s, t, b, d, ts, tz, num, x, u, y from silver.t_made) as d"  # noqa: E501
    assert silver.conn.execute(different).fetchone() == (0,)
    assert silver.conn.execute("select j from silver.t_made where i is not null").fetchone() == (
        {"a": [1, None]},
    )


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (python("fails", {"id": "bigint"}), r"fails failed \(ValueError, .*functions\.py:\d+\)"),
        (python("lies", {"id": "bigint"}), "values in id that are no bigint"),
        (python("forgets", {"id": "bigint"}), "without id and with k"),
        (python("nowhere", {"id": "bigint"}), "cannot be imported"),
    ],
    ids=["fails", "lies", "forgets", "is not there"],
)
def test_what_a_function_does_wrong_is_said_without_values(silver, step, said):
    with pytest.raises(FunctionError, match=said) as failed:
        silver.build(step)
    assert "secret" not in str(failed.value)
    with pytest.raises(psycopg.errors.UndefinedTable):
        made(silver)


REFUSED = [
    ({"filter": "pg_sleep(1) is null"}, "'pg_sleep' is not allowed"),
    ({"filter": "k = (select k from pg_authid)"}, "a subquery is not allowed"),
    ({"filter": "k > now()"}, "not allowed"),
    ({"filter": "rows.k = 'a'"}, "names a table"),
    ({"filter": "k = 'a'; drop table silver.t_rows"}, "without a semicolon"),
    ({"filter": "n + 1"}, "is integer, expected a condition"),
    ({"derive": {"x": "{{ secret }}"}}, "templates are not run"),
    ({"derive": {"x": "k * 2"}}, "k is text, expected a number"),
    ({"derive": {"x": "cast(k as regclass)"}}, "no type here"),
    ({"derive": {"x": "sum(n)"}}, "'n' is not allowed|not allowed here"),
    ({"aggregate": {"columns": {"x": "n"}}}, "stands outside of an aggregate"),
    ({"aggregate": {"columns": {"x": "sum(max(n))"}}}, "inside another"),
    ({"window": {"columns": {"x": "row_number()"}}}, "expected `order:`"),
    ({"window": {"order": ["id"], "columns": {"x": "n + 1"}}}, "looks at no neighbour"),
    ({"sql": {"select": "select * from pg_authid"}}, "reads pg_authid, which is not stated"),
    ({"sql": {"select": "select * from silver.rows"}}, "not stated"),
    ({"sql": {"select": "delete from rows"}}, "not a select"),
    ({"sql": {"select": "with d as (delete from rows returning id) select id from d"}}, "changes something"),
    ({"sql": {"select": "select pg_read_file('/etc/passwd') as x from rows"}}, "not allowed in own SQL"),
    (
        {"sql": {"select": "select query_to_xml('select 1', true, true, '') as x from rows"}},
        "not allowed in own SQL",
    ),
    ({"sql": {"select": "select pg_catalog.pg_read_file('x') as x from rows"}}, "not allowed in own SQL"),
    ({"sql": {"select": "select x from pg_read_file('x') as x"}}, "not stated|not allowed"),
    ({"sql": {"select": "select set_config('a', 'b', true) as x from rows"}}, "not allowed in own SQL"),
    ({"sql": {"select": "select id into other from rows"}}, "not allowed|not a select|changes"),
    ({"sql": {"select": "select nope from rows"}}, "nope"),
    ({"sql": {"select": "select id, id from rows"}}, "a name of its own"),
    ({"sql": {"select": "select * from rows for update"}}, "not allowed"),
    ({"sort": {"by": ["id"]}}, "no order"),
    ({"unpivot": {"columns": ["k", "n"]}}, "different types"),
    ({"split": {"column": "n", "by": ",", "into": ["a"]}}, "expected a text"),
    ({"flatten": {"column": "k", "fields": {"a": "b"}}}, "expected json"),
]


@pytest.mark.parametrize(("step", "said"), REFUSED, ids=[str(step)[:60] for step, _ in REFUSED])
def test_what_does_not_fit_or_is_not_allowed_is_refused_before_a_run(silver, step, said):
    with pytest.raises(StepError, match=said):
        silver.statement(step, {"select": ["id"]})
    assert silver.conn.execute("select count(*) from silver.t_rows").fetchone() == (3,)


def test_a_text_with_quotes_and_keywords_stays_a_text(silver):
    text = "'; drop table silver.t_rows; --"
    found = silver.rows({"derive": {"x": "'" + text.replace("'", "''") + "'"}}, {"select": ["x"]})
    assert found == [(text,)] * 3
