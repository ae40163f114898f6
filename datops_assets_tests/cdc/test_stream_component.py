"""A stream as a user has it: the document, the command, the assets, the sensor."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from typer.testing import CliRunner

from datops_assets.cli import _app
from datops_assets.components.streams.component import stream_definitions
from datops_assets.components.streams.document import StreamDocument, StreamLimits, read_stream
from datops_assets.errors import DeclarationError
from datops_assets_tests.cdc.conftest import Followed

DOCUMENT = """
stream: erp
team: sales
source: {{url: "postgresql://{user}@{host}:{port}/{dbname}", password_env: ERP_PASSWORD}}
slot: {slot}
tables:
  orders: {{}}
"""


@pytest.fixture
def erp(followed: Followed, project: Path, monkeypatch: pytest.MonkeyPatch) -> Followed:
    """A source with orders, and the document that follows it, as stream.yaml."""
    followed.run("create table orders (id int primary key, note text); insert into orders values (1, 'a')")
    monkeypatch.setenv("ERP_PASSWORD", str(followed.parameters["password"]))
    text = DOCUMENT.format(**followed.parameters, slot=followed.stream.slot)
    (project / "stream.yaml").write_text(text)
    followed.follow("orders")
    return followed


def datops(*arguments: str, expect: int = 0) -> Any:
    answer = CliRunner().invoke(_app(), ["cdc", *arguments, "--config", "stream.yaml", "--json"])
    assert answer.exit_code == expect, answer.output
    return json.loads(answer.stdout) if answer.stdout.startswith(("{", "[")) else answer.output


def document(project: Path) -> StreamDocument:
    return read_stream(project / "stream.yaml", project).document


def test_a_person_follows_a_database_by_command(erp: Followed) -> None:
    assert {finding["verdict"] for finding in datops("preflight")} <= {"ok", "warn"}
    assert datops("status")["state"].startswith("never started")
    assert datops("snapshot")["rows"] == {"orders": 1}
    erp.run("insert into orders values (2, 'b')")
    assert datops("drain")["changes"] == 1
    erp.require_equal()
    status = datops("status")
    assert (status["state"], status["changes"], status["wal_status"]) == ("streaming", 1, "reserved")
    assert "to copy all tables anew: datops cdc resync" in str(datops("snapshot", expect=2))
    assert datops("resync")["rows"] == {"orders": 2}
    assert datops("stop")["stopped"]
    assert datops("status")["state"].startswith("never started")


@pytest.mark.cdc_case(48)
def test_a_slot_that_was_dropped_needs_a_person(erp: Followed) -> None:
    """Case 48: never a silent resync."""
    datops("drain")
    erp.run(f"select pg_drop_replication_slot('{erp.stream.slot}')")
    erp.run("insert into orders values (2, 'lost')")
    said = str(datops("drain", expect=1))
    assert f"the slot {erp.stream.slot} is gone" in said
    assert "datops cdc resync erp" in said
    assert datops("status")["state"] == "resync_required"
    assert "datops cdc resync erp" in str(datops("drain", expect=1))
    datops("resync")
    datops("drain")
    erp.require_equal()


@pytest.mark.cdc_case(18, 19)
def test_preflight_says_what_to_run(erp: Followed) -> None:
    erp.run("create table plain (a int); alter table orders replica identity nothing")
    Path("stream.yaml").write_text(
        Path("stream.yaml").read_text() + "  plain: {}\n  gone: {table: other.gone}\n"
    )
    findings = {finding["what"]: finding for finding in datops("preflight", expect=1)}
    assert findings["public.orders"]["mend"] == "alter table public.orders replica identity default"
    assert "primary key" in findings["public.plain"]["mend"]
    assert "no such table" in findings["other.gone"]["found"]


def test_the_assets_show_changes_and_lag(erp: Followed, project: Path) -> None:
    definitions = stream_definitions(document(project))
    with dg.DagsterInstance.ephemeral() as instance:
        for changes in (0, 1):
            result = definitions.resolve_job_def("erp_stream").execute_in_process(instance=instance)
            assert result.success
            events = {e.asset_key.to_user_string(): e for e in result.get_asset_materialization_events()}
            assert set(events) == {"bronze/erp/orders", "bronze/erp/orders_changes"}
            metadata = events["bronze/erp/orders"].materialization.metadata
            assert metadata["changes"].value == changes
            assert metadata["retained_wal_bytes"].value >= 0
            assert [check.passed for check in result.get_asset_check_evaluations()] == [True]
            erp.run("insert into orders values (2, 'b')" if changes == 0 else "select 1")
    erp.require_equal()


@pytest.mark.cdc_case(47)
def test_a_limit_that_is_passed_fails_the_check_and_figures_are_kept(erp: Followed, project: Path) -> None:
    """The same figures are metadata, what the check judges, and metrics over time."""
    datops("drain")
    text = (project / "stream.yaml").read_text()
    (project / "stream.yaml").write_text(text + "limits: {lag: 1h, retained_mb: 1}\n")
    job = stream_definitions(document(project)).resolve_job_def("erp_stream")
    with closing(erp.database.connect()) as other, dg.DagsterInstance.ephemeral() as instance:
        other.execute("begin")
        other.execute("create table open_for_long (a int)")  # decoding would have to begin here again
        erp.run("select pg_logical_emit_message(false, 'filler', repeat('x', 8000000))")
        erp.run("insert into orders values (2, 'b')")
        result = job.execute_in_process(instance=instance)
    (check,) = result.get_asset_check_evaluations()
    shown = result.get_asset_materialization_events()[0].materialization.metadata
    assert shown["wal_status"].value == check.metadata["wal_status"].value == "reserved"
    retained = shown["retained_wal_bytes"].value
    assert retained > 8_000_000
    assert not check.passed
    assert str(check.description).startswith(
        f"the slot holds back {retained / 1e6:.0f} MB, expected at most 1 "
    )
    kept = dict(
        erp.warehouse.fetch(
            "select distinct on (metric) metric, value from datops.metrics order by metric, at desc"
        )
    )
    assert kept.keys() >= {"lag_seconds", "lag_bytes", "retained_wal_bytes", "is_sound"}
    assert (kept["retained_wal_bytes"], kept["is_sound"]) == (retained, 1.0)


def test_limits_say_which_of_them_is_passed() -> None:
    limits = StreamLimits(lag="10m", lag_mb=5, retained_mb=100)
    assert limits.exceeded({"lag_seconds": 600.0, "lag_bytes": 5e6, "retained_wal_bytes": 1e8}) == []
    assert limits.exceeded({}) == []
    assert limits.exceeded({"lag_seconds": 601.0, "lag_bytes": 6e6, "retained_wal_bytes": 1.2e8}) == [
        "601 s behind, expected at most 10m (limits.lag)",
        "6 MB behind, expected at most 5 (limits.lag_mb)",
        "the slot holds back 120 MB, expected at most 100 (limits.retained_mb)",
    ]
    assert StreamLimits().exceeded({"lag_seconds": 1e9}) == []


@pytest.mark.cdc_case(55)
def test_a_schema_change_is_shown_as_a_difference(erp: Followed, project: Path) -> None:
    definitions = stream_definitions(document(project))
    erp.run("alter table orders add column old int")
    with dg.DagsterInstance.ephemeral() as instance:

        def shown() -> dict[str, Any]:
            job = definitions.resolve_job_def("erp_stream")
            result = job.execute_in_process(instance=instance)
            events = {e.asset_key.to_user_string(): e for e in result.get_asset_materialization_events()}
            metadata = events["bronze/erp/orders"].materialization.metadata
            return {name: metadata[name].value for name in ("columns_changed", "copied") if name in metadata}

        assert shown() == {}
        erp.run("alter table orders add column paid bool; insert into orders values (2, 'b', null, true)")
        assert shown() == {"columns_changed": {"appeared": ["paid"]}}
        erp.run("alter table orders drop column old")
        assert shown() == {"columns_changed": {"vanished": ["old"]}}
        erp.run("alter table orders rename note to remark; alter table orders alter paid type text")
        difference = {"renamed": {"note": "remark"}, "retyped": {"paid": "boolean, now text"}}
        anew = "anew: the log does not tell what became of its rows"
        assert shown() == {"columns_changed": difference, "copied": anew}
        erp.run("alter table orders add column n int default 1; insert into orders values (3, 'c')")
        assert shown() == {"columns_changed": {"appeared": ["n"]}, "copied": anew}
        assert shown() == {}
    erp.require_equal()


def test_a_code_location_takes_the_definitions(erp: Followed, project: Path) -> None:
    """Names of jobs and steps are one space there; a job that is made alone does not notice."""
    repository = stream_definitions(document(project)).get_repository_def()
    repository.load_all_definitions()
    assert "erp_stream" in {job.name for job in repository.get_all_jobs()}


def test_the_sensor_starts_a_run_for_changes_of_its_tables_only(erp: Followed, project: Path) -> None:
    definitions = stream_definitions(document(project))
    sensor = definitions.get_sensor_def("erp_changes")
    job = definitions.resolve_job_def("erp_stream")
    with dg.DagsterInstance.ephemeral() as instance:

        def tick() -> Any:
            context = dg.build_sensor_context(instance=instance)
            return sensor.evaluate_tick(context)

        assert len(tick().run_requests) == 1
        job.execute_in_process(instance=instance)
        assert tick().skip_message == "no changes since the last run"
        erp.run("create table other (a int); insert into other values (1)")
        assert tick().skip_message == "no changes since the last run"
        erp.run("insert into orders values (2, 'b')")
        assert len(tick().run_requests) == 1


@pytest.mark.cdc_case(48)
def test_the_sensor_starts_a_run_where_the_slot_is_gone(erp: Followed, project: Path) -> None:
    """The run asks for a person; from then on the sensor says so and starts nothing."""
    datops("drain")
    sensor = stream_definitions(document(project)).get_sensor_def("erp_changes")
    with dg.DagsterInstance.ephemeral() as instance:
        erp.run(f"select pg_drop_replication_slot('{erp.stream.slot}')")
        assert len(sensor.evaluate_tick(dg.build_sensor_context(instance=instance)).run_requests) == 1
        datops("drain", expect=1)
        tick = sensor.evaluate_tick(dg.build_sensor_context(instance=instance))
    assert tick.skip_message == f"the slot {erp.stream.slot} is gone; a person decides: datops cdc resync erp"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("postgresql://", "postgresql://x:secret-word@", "a password stands in the URL"),
        ("postgresql://", "mysql://", "only PostgreSQL's log can be followed"),
        ("tables:", "tabels:", "stream.yaml:"),
        ("slot: ", "slot: A-", "slot"),
    ],
)
def test_a_mistake_is_named_with_its_line(
    erp: Followed, project: Path, before: str, after: str, said: str
) -> None:
    text = (project / "stream.yaml").read_text().replace(before, after, 1)
    (project / "stream.yaml").write_text(text)
    with pytest.raises(DeclarationError) as refused:
        document(project)
    assert said in str(refused.value)
    assert "secret-word" not in str(refused.value)


@pytest.mark.cdc_case(54)
def test_a_wrong_password_is_one_sentence(erp: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 54."""
    monkeypatch.setenv("ERP_PASSWORD", "not-this-one")
    said = str(datops("preflight", expect=1))
    assert "refuses the user or password" in said
    assert "not-this-one" not in said


def test_names_that_two_documents_want_in_bronze_are_refused(erp: Followed, project: Path) -> None:
    text = (project / "stream.yaml").read_text()
    (project / "other.yaml").write_text(text)
    (project / "pipeline.yaml").write_text(
        "pipeline: erp\nteam: sales\nsource: {type: files, path: data}\n"
        "tables:\n  orders_changes: {files: '*.csv', format: csv}\n"
    )
    answer = CliRunner().invoke(_app(), ["validate", "stream.yaml", "other.yaml", "pipeline.yaml"])
    assert answer.exit_code == 2
    assert (
        "stream.yaml:7: tables.orders: bronze.erp_orders_changes is also what pipeline.yaml writes"
        in answer.output
    )
    assert "other.yaml:7: tables.orders: bronze.erp_orders is also what stream.yaml writes" in answer.output
    (project / "stream.yaml").write_text(text + "  orders_changes: {}\n")
    with pytest.raises(DeclarationError, match="orders_changes is how the log of orders is called"):
        document(project)
