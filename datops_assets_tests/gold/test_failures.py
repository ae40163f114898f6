"""What is said when something is wrong, and where the password is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from datops_assets.components.gold.process import NOWHERE, connection_variables, start_dbt, stop
from datops_assets.components.gold.project import DbtProject
from datops_assets.errors import DeclarationError
from datops_assets_tests.conftest import TestWarehouse
from datops_assets_tests.gold.conftest import DBT_PROJECT, NETWORK_GUARD, Build, Built


def can_unshare() -> bool:
    """Whether this machine lets us make a network namespace."""
    if shutil.which("unshare") is None:
        return False
    return (
        subprocess.run(["unshare", "--net", "--map-root-user", "true"], capture_output=True).returncode == 0
    )


def failure_of(outcome: dg.ExecuteInProcessResult) -> str:
    [event] = [event for event in outcome.all_events if event.is_step_failure]
    data: Any = event.event_specific_data
    return str(data.user_failure_data.description)


def test_a_failed_test_is_a_failed_check_with_the_number_of_rows(shop: TestWarehouse, build: Build) -> None:
    """The run fails too, and says which query shows the rows."""
    shop.conn.execute(
        "insert into silver.shop_customers select * from silver.shop_customers where customer_id < 3"
    )
    outcome = build(selection=dg.AssetSelection.assets(["gold", "customers"]))
    failed = [check for check in outcome.get_asset_check_evaluations() if not check.passed]
    assert [check.check_name for check in failed] == ["unique_customers_customer_id"]
    [check] = failed
    assert check.description == "2 row(s) fail; the query in `sql` shows them"
    assert (
        check.severity is dg.AssetCheckSeverity.ERROR
        and check.metadata["dagster_dbt/failed_row_count"].value == 2
    )
    assert '"gold"."customers"' in str(check.metadata["sql"].value)
    assert not outcome.success
    assert "test unique_customers_customer_id failed: 2 row(s)" in failure_of(outcome)


def test_a_warning_fails_its_check_and_lets_the_run_go_on(shop: TestWarehouse, build: Build) -> None:
    """Severity warn, as the project's author chose it: a payment that no contract could refuse."""
    shop.conn.execute("update silver.shop_payments set amount = 9999999.99 where payment_id = 1000")
    outcome = build(selection=dg.AssetSelection.assets(["gold", "daily_payments"]))
    [check] = [check for check in outcome.get_asset_check_evaluations() if not check.passed]
    assert (check.check_name, check.severity) == ("captured_equals_total", dg.AssetCheckSeverity.WARN)
    assert check.description == "1 row(s) fail; the query in `sql` shows them"
    assert "having sum(payments.amount) <> orders.total" in str(check.metadata["sql"].value)
    assert outcome.success


def test_a_model_that_cannot_be_built_fails_the_run_with_what_dbt_says(
    shop: TestWarehouse, build: Build
) -> None:
    """The others are built; what was in the broken one's table stays."""
    shop.conn.execute("alter table silver.shop_web_events rename column type to kind")
    shop.conn.execute("update silver.shop_orders set total = 20.00 where order_id = 100")
    outcome = build()
    assert not outcome.success
    said = failure_of(outcome)
    assert "conversion_funnel could not be built" in said and 'column "type" does not exist' in said
    assert said.endswith("dagster asset materialize -m datops_assets.definitions --select 'group:gold'")
    assert shop.fetch("select revenue from gold.daily_revenue where order_date = '2026-02-01'") == [(50,)]
    assert shop.fetch("select count(*) from gold.conversion_funnel") == [(1,)]


def test_a_second_build_waits_for_the_first(shop: TestWarehouse, build: Build) -> None:
    """Two at once would rename each other's tables."""
    waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
    lock = "hashtextextended('datops.gold', 0)"
    shop.conn.execute(f"select pg_advisory_lock({lock})")
    outcomes: list[dg.ExecuteInProcessResult] = []
    runner = threading.Thread(
        target=lambda: outcomes.append(build(selection=dg.AssetSelection.assets(["gold", "customers"])))
    )
    runner.start()
    for _ in range(300):
        if shop.fetch(waiting) == [(1,)]:
            break
        runner.join(0.1)
    assert runner.is_alive() and not outcomes
    shop.conn.execute(f"select pg_advisory_unlock({lock})")
    runner.join(60)
    assert outcomes[0].success


def test_the_password_is_in_no_argument_and_in_no_file(built: Built) -> None:
    """dbt writes logs, manifests and compiled SQL; none of it may hold the secret."""
    password = built.warehouse.password
    assert password
    files = [path for path in built.home.rglob("*") if path.is_file()]
    assert any(path.name == "dbt.log" for path in files)
    assert [path for path in files if password.encode() in path.read_bytes()] == []


def test_nothing_looked_outside(built: Built) -> None:
    """Preparing and building ran under a guard that refuses names and connections; it saw none."""
    assert any(path.name == "graph.json" for path in built.home.rglob("*"))
    assert not list(built.home.rglob("network-attempts.txt"))


def test_the_guard_sees_dbt_looking_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`dbt --version` asks PyPI for newer versions; dagster-dbt's own resource calls it each time."""
    monkeypatch.syspath_prepend(str(NETWORK_GUARD))
    process = start_dbt(["--version"], tmp_path, NOWHERE)
    assert process.stdout is not None and "Core" in process.stdout.read()
    attempts = (tmp_path / "network-attempts.txt").read_text().splitlines()
    assert attempts and not any("127.0.0.1" in attempt or "localhost" in attempt for attempt in attempts)


@pytest.mark.slow  # test_nothing_looked_outside holds the same of every build, by a guard
@pytest.mark.skipif(not can_unshare(), reason="needs Linux and the right to make a network namespace")
def test_gold_is_built_where_there_is_no_network(shop: TestWarehouse, built: Built) -> None:
    """A namespace without even a loopback interface; the server is reached by its Unix socket."""
    [(folder,)] = shop.fetch("show unix_socket_directories")
    url = replace(shop.warehouse, host=folder).url
    program = f"""
import dagster as dg
from pathlib import Path
from datops_assets.components.gold import Gold
from datops_assets.config.settings import Settings
settings = Settings(project_root=Path({str(DBT_PROJECT.parent)!r}), home=Path({str(built.home)!r}))
outcome = dg.materialize(list(Gold(team="commerce").definitions(settings).assets), raise_on_error=False)
print("built" if outcome.success else "failed")
"""
    command = ["unshare", "--net", "--map-root-user", sys.executable, "-c", program]
    environment = {
        "DATOPS_WAREHOUSE_URL": url,
        "PYTHONPATH": str(DBT_PROJECT.parent),
        "PATH": os.environ["PATH"],
    }
    said = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert said.stdout.strip() == "built", said.stderr


def test_the_project_folder_is_only_read(built: Built) -> None:
    """It may be part of an image; targets, logs and dbt's own notes go below the home folder."""
    assert not [
        path
        for path in DBT_PROJECT.rglob("*")
        if path.name in ("target", "logs", ".user.yml", "dbt_packages")
    ]


def test_dbt_ends_when_its_parent_is_gone(tmp_path: Path) -> None:
    """A killed run has lost its lock; an orphan must not go on writing."""
    process = start_dbt(["parse", "--project-dir", str(DBT_PROJECT)], tmp_path, NOWHERE)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(30) == 3


def test_stopping_ends_the_process(tmp_path: Path) -> None:
    """As when somebody terminates the run."""
    process = start_dbt(["parse", "--project-dir", str(DBT_PROJECT)], tmp_path, NOWHERE)
    stop(process)
    assert process.poll() is not None


def test_a_connection_is_spelled_for_dbt_and_for_libpq() -> None:
    """What profiles.yml does not name reaches libpq by its own variables."""
    url = "postgresql://ada:p%40ss@db.example.com:6432/shop?sslmode=verify-full&sslrootcert=/etc/ca.pem"
    assert connection_variables(url) == {
        "DATOPS_DBT_HOST": "db.example.com",
        "DATOPS_DBT_PORT": "6432",
        "DATOPS_DBT_USER": "ada",
        "DATOPS_DBT_DBNAME": "shop",
        "DBT_ENV_SECRET_DATOPS_PASSWORD": "p@ss",
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": "/etc/ca.pem",
    }


def test_a_project_that_dbt_cannot_parse_is_a_wrong_declaration(tmp_path: Path) -> None:
    """With dbt's own words, which name the file."""
    folder = tmp_path / "dbt_project"
    shutil.copytree(DBT_PROJECT, folder)
    (folder / "models" / "marts" / "customers.sql").write_text("select * from {{ ref('nobody') }}")
    with pytest.raises(DeclarationError, match=r"customers.sql.*nobody"):
        DbtProject(folder, tmp_path / "home", "fqn:*", "").graph()


def test_a_folder_without_a_project_is_a_wrong_declaration(tmp_path: Path) -> None:
    """The attribute to repair is named."""
    with pytest.raises(DeclarationError, match=r"no dbt_project.yml here.*`project`"):
        DbtProject(tmp_path, tmp_path / "home", "fqn:*", "").graph()
