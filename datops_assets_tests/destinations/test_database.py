"""Databases: exactly once, on PostgreSQL by COPY and on SQLite by inserts."""

from __future__ import annotations

import os
from decimal import Decimal

import pytest
import sqlalchemy as sa

from datops_assets.destinations import DatabaseDestination, DatabaseTarget, open_rows
from datops_assets.errors import DestinationRefusedError, DestinationUnreachableError

RELATION = ("gold", "sales")


@pytest.fixture(params=["postgresql", "sqlite"])
def url(request, server, tmp_path, monkeypatch):
    """An empty database that is not the warehouse."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'reports.db'}"
        return
    name = f"datops_reports_{os.getpid()}"
    with server.connect() as conn:
        conn.execute(f"drop database if exists {name} with (force)")
        conn.execute(f"create database {name}")
    yield server.at(name).sqlalchemy_url.replace("+psycopg2", "+psycopg")
    with server.connect() as conn:
        conn.execute(f"drop database {name} with (force)")


def deliver(conn, url: str, target: DatabaseTarget, marker: str):
    """Deliver gold.sales."""
    with DatabaseDestination(url, "reports") as destination, open_rows(conn, RELATION) as rows:
        return destination.deliver(rows, target, marker)


def read(url: str, query: str) -> list[tuple]:
    """Rows there."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as conn:
        return [tuple(row) for row in conn.execute(sa.text(query))]


SALES = DatabaseTarget("sales")


def test_replace_makes_the_table_hold_just_these_rows(sales, url):
    assert deliver(sales, url, SALES, "1").rows == 4
    rows = read(url, "select id, country, total from sales order by id")
    assert [(i, c, None if t is None else Decimal(str(t)).quantize(Decimal("0.01"))) for i, c, t in rows] == [
        (1, "DE", Decimal("10.50")), (2, "", Decimal("-0.01")), (3, 'a,"b"\nc', None),
        (4, None, Decimal("99999999.99")),
    ]  # fmt: skip
    sales.execute("delete from gold.sales where id <> 3")
    deliver(sales, url, SALES, "2")
    assert read(url, "select id from sales") == [(3,)]


def test_the_same_delivery_arrives_once(sales, url):
    assert deliver(sales, url, SALES, "1").changed
    sales.execute("delete from gold.sales")
    assert not deliver(sales, url, SALES, "1").changed
    assert read(url, "select count(*) from sales") == [(4,)]
    assert deliver(sales, url, SALES, "2").changed
    assert read(url, "select count(*) from sales") == [(0,)]
    assert read(url, "select export, target, marker, rows_delivered from datops_deliveries") == [
        ("reports", "sales", "2", 0)
    ]


def test_merge_renews_rows_of_a_known_key_and_leaves_the_others(sales, url):
    target = DatabaseTarget("sales", "merge", ("id",))
    deliver(sales, url, target, "1")
    sales.execute("delete from gold.sales where id = 1; update gold.sales set country = 'FR' where id = 2")
    sales.execute("insert into gold.sales (id, country) values (5, 'IT')")
    deliver(sales, url, target, "2")
    assert read(url, "select id, country from sales where id <> 3 order by id") == [
        (1, "DE"),
        (2, "FR"),
        (4, None),
        (5, "IT"),
    ]


def test_a_target_with_other_columns_is_refused_and_stays_as_it_was(sales, url):
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as conn:
        conn.execute(sa.text("create table sales (id bigint, other text not null)"))
        conn.execute(sa.text("insert into sales values (7, 'x')"))
    with pytest.raises((DestinationRefusedError, DestinationUnreachableError), match="sales") as refused:
        deliver(sales, url, SALES, "1")
    assert "DE" not in str(refused.value)
    assert read(url, "select id from sales") == [(7,)]


def test_a_server_that_does_not_answer_is_one_to_try_again(sales):
    url = "postgresql://writer@127.0.0.1:1/reports"
    with (
        pytest.raises(DestinationUnreachableError) as failed,
        DatabaseDestination(url, "r", "hunter2") as destination,
        open_rows(sales, RELATION) as rows,
    ):
        destination.deliver(rows, SALES, "1")
    assert "hunter2" not in str(failed.value)


EXPORT = """\
export: reports
team: x
destination: {{type: database, url: "{url}"}}
tables:
  sales: {{from: gold/sales, table: sales}}
"""


def test_kill_9_before_and_after_the_commit_delivers_once(sales, project, deliver_by_process, tmp_path):
    url = f"sqlite:///{tmp_path / 'reports.db'}"
    document = EXPORT.format(url=url)
    deliver_by_process(document, failpoint="export.written")
    assert read(url, "select count(*) from sales") == [(0,)]
    deliver_by_process(document, failpoint="export.committed")
    assert read(url, "select count(*) from sales") == [(4,)]
    assert deliver_by_process(document) == "0 False"
    assert read(url, "select count(*) from sales") == [(4,)]
