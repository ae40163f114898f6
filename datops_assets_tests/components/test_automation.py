"""What runs by itself: judged by Dagster over a real history of events."""

from __future__ import annotations

import dagster as dg
import pytest

from datops_assets.components.automation import WHEN_SILVER_CHANGED, automation_sensor
from datops_assets.components.pipeline import pipeline_definitions

pytestmark = pytest.mark.usefixtures("project")

DOCUMENT = """\
pipeline: shop
team: commerce
source: {type: files, path: landing}
retries: {max: 0}
tables:
  customers:
    files: customers/*.csv
    load: merge
    contract:
      key: [id]
      columns:
        id: {type: bigint, required: true}
        country: {type: text, in: [DE, FR], severity: block}
  orders:
    files: orders/*.csv
    load: merge
    contract:
      key: [id]
      columns: {id: {type: bigint}, customer: {type: bigint}}
      rules: [{foreign_key: [customer], references: customers, columns: [id], severity: warn}]
"""
DAILY = DOCUMENT.replace(
    "files: orders/*.csv",
    "files: orders/*.csv\n    partition: {daily: '(\\d{4}-\\d{2}-\\d{2})', start: 2026-01-01}",
)
CUSTOMERS, ORDERS = dg.AssetKey(["silver", "shop", "customers"]), dg.AssetKey(["silver", "shop", "orders"])
GOLD = dg.AssetKey(["gold", "revenue"])


@dg.asset(key=GOLD, deps=[CUSTOMERS, ORDERS], automation_condition=WHEN_SILVER_CHANGED)
def revenue() -> None:
    """Stands for a model of gold: the same condition on the same inputs."""


class History:
    """Runs of one source, and what automation asks for after each."""

    def __init__(self, landing, text: str, instance: dg.DagsterInstance) -> None:
        landing.put("customers/1.csv", "id,country\n1,DE\n")
        landing.put("orders/2026-01-05.csv", "id,customer\n10,1\n")
        self.instance = instance
        source = pipeline_definitions(landing.declare(text))
        here = dg.Definitions(assets=[revenue], executor=dg.in_process_executor)
        self.definitions = dg.Definitions.merge(source, here)
        self.asked = dg.evaluate_automation_conditions(self.definitions, instance)

    def load(self) -> dg.ExecuteInProcessResult:
        """What the file sensor starts."""
        sensor = self.definitions.get_repository_def().get_sensor_def("shop_files")
        [request] = sensor(dg.build_sensor_context(instance=self.instance)).run_requests
        return self.run("shop_pipeline", asset_selection=request.asset_selection, tags=request.tags)

    def run(self, job: str, **options: object) -> dg.ExecuteInProcessResult:
        """A run of a job, or of some assets in the job of all."""
        found = self.definitions.get_repository_def().get_job(job)
        return found.execute_in_process(instance=self.instance, raise_on_error=False, **options)  # type: ignore[arg-type]

    def asks_for(self) -> set[dg.AssetKey]:
        """Assets that automation would start now."""
        self.asked = dg.evaluate_automation_conditions(
            self.definitions, self.instance, cursor=self.asked.cursor
        )
        keys = (CUSTOMERS, ORDERS, GOLD)
        return {key for key in keys if self.asked.get_num_requested(key)}


@pytest.fixture(params=[DOCUMENT, DAILY], ids=["without days", "with days"])
def history(request, landing, instance) -> History:
    return History(landing, request.param, instance)


def test_nothing_is_asked_for_before_anything_was_loaded(history):
    assert history.asks_for() == set()


def test_after_the_sources_job_only_gold_is_asked_for_and_once(history):
    """The job made silver from the same update of bronze: judging again would be a second run for nothing."""
    assert history.load().success
    assert history.asks_for() == {GOLD}
    assert history.asks_for() == set()


def test_a_scheduled_run_asks_for_gold_only_too(history, landing):
    """Its runs name no assets; the job's tag says that they judge."""
    history.load()
    history.asks_for()
    landing.put("customers/3.csv", "id,country\n3,FR\n")
    assert history.run("shop_pipeline").success
    assert history.asks_for() == {GOLD}


def test_an_update_while_the_last_one_is_handled_is_not_forgotten(history, landing):
    history.load()
    assert history.asks_for() == {GOLD}
    history.run("__ASSET_JOB", asset_selection=[GOLD])
    landing.put("orders/2026-01-08.csv", "id,customer\n18,1\n")
    history.load()
    assert history.asks_for() == {GOLD}


def test_a_failed_blocking_check_withholds_gold_until_it_passes(history, landing):
    history.load()
    history.asks_for()
    landing.put("customers/2.csv", "id,country\n2,XX\n")
    landing.put("orders/2026-01-06.csv", "id,customer\n11,1\n")
    assert not history.load().success
    assert history.asks_for() == set()
    landing.put("customers/2.csv", "id,country\n2,FR\n")
    assert history.load().success
    assert history.asks_for() == {GOLD}


def test_bronze_alone_asks_for_its_silver_and_for_gold_behind_it(history, landing):
    history.load()
    history.asks_for()
    landing.put("customers/3.csv", "id,country\n3,FR\n")
    bronze = dg.AssetKey(["bronze", "shop", "customers"])
    history.run("__ASSET_JOB", asset_selection=[bronze])
    # Both in one run, gold behind silver.
    assert history.asks_for() == {CUSTOMERS, GOLD}


def test_a_table_that_foreign_keys_look_into_asks_for_no_judgement(history, landing):
    history.load()
    history.asks_for()
    landing.put("customers/3.csv", "id,country\n3,FR\n")
    keys = [dg.AssetKey(["bronze", "shop", "customers"]), CUSTOMERS]
    history.run("__ASSET_JOB", asset_selection=keys)
    assert history.asks_for() == {GOLD}


def test_a_day_of_bronze_asks_for_that_day_of_silver(landing, instance):
    history = History(landing, DAILY, instance)
    history.load()
    history.asks_for()
    landing.put("orders/2026-01-07.csv", "id,customer\n12,1\n")
    bronze = dg.AssetKey(["bronze", "shop", "orders"])
    history.run("__ASSET_JOB", asset_selection=[bronze], partition_key="2026-01-07")
    assert history.asks_for() == {ORDERS}
    assert history.asked.get_requested_partitions(ORDERS) == {"2026-01-07"}
    history.run("__ASSET_JOB", asset_selection=[ORDERS], partition_key="2026-01-07")
    assert history.asks_for() == {GOLD}


def test_the_sensor_that_looks_is_on_from_the_start():
    sensor = automation_sensor()
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert sensor.name != dg.AutomationConditionSensorDefinition("x", target="*").name
