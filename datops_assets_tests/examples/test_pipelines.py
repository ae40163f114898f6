"""The pipelines under examples/, each run as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from datops_assets.components.documents import read_documents
from datops_assets.components.runner import run_pipeline
from datops_assets.pipelines import Pipeline

EXAMPLES = Path(__file__).parents[2] / "examples"
ORDERS = """\
order_id,country,ordered_on,total
1,DE,2026-01-05,10.00
2,FR,2026-01-05,20.50
3,DE,2026-01-06,5.25
4,Germany,2026-01-06,1.00
"""
REVENUE = [("DE", 2, Decimal("15.25")), ("FR", 1, Decimal("20.50"))]


@pytest.fixture
def orders(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one file of orders, one of them bad."""
    file = project / "delivered" / "orders" / "1.csv"
    file.parent.mkdir(parents=True)
    file.write_text(ORDERS)
    monkeypatch.setenv("SIMPLE_DIR", str(project / "delivered"))
    return file


def script(name: str, project: Path, **variables: str) -> str:
    """What a script of examples/ prints."""
    path = os.pathsep.join([str(EXAMPLES.parent)])
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        cwd=project,
        env={**os.environ, "PYTHONPATH": path, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def revenue(warehouse) -> list[tuple]:
    """Rows of the table that both simple pipelines make."""
    return warehouse.fetch("select country, orders, revenue from silver.simple_revenue order by country")


def test_the_simple_document_makes_its_table(project, orders, warehouse):
    (loaded,) = read_documents(EXAMPLES / "simple_pipeline.yaml", project)
    result = run_pipeline(loaded.document, project)
    assert result.success, result.problems
    assert revenue(warehouse) == REVENUE


def test_the_simple_script_does_the_same(project, orders, warehouse):
    said = script("simple_pipeline.py", project)
    assert "plan: simple.orders: load 1" in said
    assert "orders: 4 rows loaded, 1 in quarantine" in said
    assert revenue(warehouse) == REVENUE


def test_the_simple_script_is_the_simple_document(orders, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import simple_pipeline

    assert simple_pipeline.pipeline.document == Pipeline.from_yaml(EXAMPLES / "simple_pipeline.yaml").document


SHOP = """
create table customers (customer_id bigint primary key, email text not null, country text not null);
create table orders (order_id bigint primary key, customer_id bigint not null, status text not null,
    total numeric(12,2) not null, ordered_at timestamptz not null, updated_at timestamptz not null);
insert into customers values (1, 'ada@example.com', 'DE'), (2, 'bob@example.com', 'FR');
insert into orders values
    (10, 1, 'paid', 119.00, '2026-01-05 10:00Z', '2026-01-05 10:00Z'),
    (11, 1, 'open', 5.00, '2026-01-06 10:00Z', '2026-01-06 10:00Z'),
    (12, 2, 'paid', 11.90, '2026-01-06 11:00Z', '2026-01-06 11:00Z'),
    (13, 1, 'paid', 23.80, '2026-01-07 11:00Z', '2026-01-07 11:00Z');
"""


@pytest.fixture
def shop_database(server, monkeypatch):
    """Another database of the server: the web shop's."""
    name = f"datops_webshop_{os.getpid()}"
    with server.connect() as conn:
        conn.execute(f"drop database if exists {name}")
        conn.execute(f"create database {name}")
    there = server.at(name)
    with there.connect() as conn:
        conn.execute(SHOP)
        url = f"postgresql://{there.user}@{there.host}:{there.port}/{name}"
        if there.host.startswith("/"):
            url = f"postgresql://{there.user}@/{name}?host={there.host}&port={there.port}"
        monkeypatch.setenv("SHOP_DB_URL", url)
        monkeypatch.setenv("SHOP_DB_PASSWORD", there.password or "none")
        yield conn
    with server.connect() as conn:
        conn.execute(f"drop database {name} with (force)")


def test_the_configuration_with_a_database_runs_and_takes_only_what_changed(
    project, shop_database, warehouse
):
    (loaded,) = read_documents(EXAMPLES / "pipeline_config.yaml", project)
    first = run_pipeline(loaded.document, project)
    assert first.success, first.problems
    columns = "country, ordered_on::text, orders, revenue, so_far"
    by_day = f"select {columns} from silver.webshop_revenue_by_day order by 1, 2"
    assert warehouse.fetch(by_day) == [
        ("DE", "2026-01-05", 1, Decimal("100.00"), Decimal("100.00")),
        ("DE", "2026-01-07", 1, Decimal("20.00"), Decimal("120.00")),
        ("FR", "2026-01-06", 1, Decimal("10.00"), Decimal("10.00")),
    ]
    assert warehouse.fetch("select distinct length(email) from silver.webshop_paid_orders") == [(64,)]
    assert warehouse.fetch("select customer_id, open, paid from silver.webshop_status_by_customer order by 1") == [
        (1, 1, 2), (2, 0, 1),
    ]  # fmt: skip
    shop_database.execute("update orders set status = 'paid', updated_at = '2026-01-09Z' where order_id = 11")
    second = run_pipeline(loaded.document, project)
    assert second.success, second.problems
    assert warehouse.fetch("select paid from silver.webshop_status_by_customer where customer_id = 1") == [
        (3,)
    ]
    assert warehouse.fetch("select customer_id from silver.webshop_best_customers order by revenue desc") == [
        (1,),
        (2,),
    ]


def test_the_configuration_has_its_schedule_and_tags_in_dagster(project, shop_database):
    from datops_assets.components.pipeline import pipeline_definitions

    (loaded,) = read_documents(EXAMPLES / "pipeline_config.yaml", project)
    made = pipeline_definitions(loaded.document)
    (schedule,) = made.schedules
    assert schedule.cron_schedule == "30 3 * * *"
    graph = made.resolve_asset_graph()
    tags = {key.to_user_string(): graph.get(key).tags for key in graph.get_all_asset_keys()}
    assert tags["silver/webshop/paid_orders"]["pii"] == "masked"
    assert {each["domain"] for each in tags.values()} == {"sales"}


READINGS = """\
station,measured_at,celsius
oslo,2026-07-01 06:00,11.5
oslo,2026-07-01 14:00,24.5
oslo,2026-07-02 14:00,19.0
rome,2026-07-01 14:00,33.0
rome,2026-07-02 14:00,36.25
rome,2026-07-02 15:00,999
"""


def test_the_etl_script_reads_checks_sums_up_and_writes_files(project):
    file = project / "weather" / "readings" / "1.csv"
    file.parent.mkdir(parents=True)
    file.write_text(READINGS)
    said = script("etl_pipeline.py", project, ETL_DIR="weather", ETL_OUT="reports")
    assert "readings: 5 rows to " in said
    warmest = (project / "reports" / "warmest.csv").read_text().splitlines()
    assert warmest == [
        "station,day,mean,highest", "oslo,2026-07-01,18.00,24.50", "rome,2026-07-02,36.25,36.25",
    ]  # fmt: skip
    assert (project / "reports" / "readings.parquet").is_file()
