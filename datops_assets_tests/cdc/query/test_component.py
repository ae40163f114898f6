"""A stream by queries as a user has it: the document, the commands, the assets, the sensor."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from typer.testing import CliRunner

from datops_assets.cdc.changed_keys import FollowedMirror
from datops_assets.cli import _app
from datops_assets.components.streams.component import stream_definitions
from datops_assets.components.streams.document import StreamDocument, read_stream
from datops_assets.components.streams.running import follow_for_ever
from datops_assets.errors import DeclarationError
from datops_assets_tests.cdc.query.conftest import Queried

LIMIT_S = 120
DOCUMENT = """
stream: erp
team: sales
capture: query
source: {url: "%s", password_env: ERP_PASSWORD}
tables:
  orders: {cursor: at, lookback: 10m}
  notes: {}
"""


@pytest.fixture
def erp(postgres: Queried, project: Path, monkeypatch: pytest.MonkeyPatch) -> Queried:
    """A source with two tables, and the document that looks at them, as stream.yaml."""
    url = postgres.address.url
    postgres.run("create table orders (id int primary key, at timestamptz default now())")
    postgres.run("create table notes (id int primary key, note text)")
    postgres.run("insert into orders values (1); insert into notes values (1, 'a')")
    monkeypatch.setenv("ERP_PASSWORD", str(url.password))
    (project / "stream.yaml").write_text(DOCUMENT % url._replace(password=None).render_as_string())
    return postgres


def datops(*arguments: str, expect: int = 0) -> Any:
    answer = CliRunner().invoke(_app(), ["cdc", *arguments, "--config", "stream.yaml", "--json"])
    assert answer.exit_code == expect, answer.output
    return json.loads(answer.stdout) if answer.stdout.startswith(("{", "[")) else answer.output


def document(project: Path) -> StreamDocument:
    return read_stream(project / "stream.yaml", project).document


def test_a_person_looks_at_a_database_by_command(erp: Queried) -> None:
    findings = datops("preflight")
    assert [(f["verdict"], f["what"]) for f in findings] == [("ok", "orders"), ("ok", "notes")]
    assert datops("status")["state"].startswith("never started")
    assert datops("snapshot")["rows"] == {"orders": 1, "notes": 1}
    erp.run("insert into orders values (2); update notes set note = 'b'")
    done = datops("drain")
    assert (done["tables"], done["status"]["state"]) == ({"orders": 1, "notes": 1}, "streaming")
    assert erp.mirror(name="notes") == [(1, "b")]
    status = datops("status")
    assert (status["capture"], status["changes"], status["looks"]) == ("query", 2, 3)
    assert status["lag_seconds"] >= 0
    assert status["tables"]["orders"]["watermark"]
    assert "to copy all tables anew: datops cdc resync" in str(datops("snapshot", expect=2))
    assert datops("resync")["rows"] == {"orders": 2, "notes": 1}
    assert datops("stop")["stopped"]
    assert datops("status")["state"].startswith("never started")


def test_the_assets_show_changes_and_what_was_read(erp: Queried, project: Path) -> None:
    definitions = stream_definitions(document(project))
    with dg.DagsterInstance.ephemeral() as instance:
        job = definitions.resolve_job_def("erp_stream")
        sensor = definitions.get_sensor_def("erp_changes")
        tick = sensor.evaluate_tick(dg.build_sensor_context(instance=instance))
        assert len(tick.run_requests or []) == 1
        for changes in (0, 1):
            result = job.execute_in_process(instance=instance)
            events = {e.asset_key.to_user_string(): e for e in result.get_asset_materialization_events()}
            assert len(events) == 4
            metadata = events["bronze/erp/notes"].materialization.metadata
            assert metadata["changes"].value == changes
            assert metadata["rows_read"].value == changes
            assert [check.passed for check in result.get_asset_check_evaluations()] == [True]
            erp.run("update notes set note = 'b'")
        tick = sensor.evaluate_tick(dg.build_sensor_context(instance=instance))
        assert "the next comes after 300 s" in str(tick.skip_message)


def test_the_document_asks_for_a_history_and_for_deleted_rows(erp: Queried, project: Path) -> None:
    file = project / "stream.yaml"
    kept = "notes: {history: true, deletes: soft, silver: view, rename: {note: remark}}"
    file.write_text(file.read_text().replace("notes: {}", kept))
    datops("snapshot")
    erp.run("update notes set note = 'b'")
    with dg.DagsterInstance.ephemeral() as instance:
        job = stream_definitions(document(project)).resolve_job_def("erp_stream")
        result = job.execute_in_process(instance=instance)
        events = {e.asset_key.to_user_string(): e for e in result.get_asset_materialization_events()}
    metadata = events["silver/erp/notes_history"].materialization.metadata
    assert [metadata[name].value for name in ("changes", "versions_begun", "told_look")] == [1, 1, "3"]
    erp.run("delete from notes")
    datops("drain")
    fetch = erp.warehouse.fetch
    assert fetch("select remark, _is_current from silver.erp_notes_history order by _from_look") == [
        ("a", False), ("b", False),
    ]  # fmt: skip
    assert fetch("select note, _deleted_look from bronze.erp_notes") == [("b", 4)]
    assert fetch("select count(*) from silver.erp_notes") == [(0,)]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("capture: query", "capture: query\nslot: erp", "slot is of `capture: log`"),
        ("capture: query", "capture: log", "tables.orders.cursor, tables.orders.lookback: expected `capture: query`"),
        ("notes: {}", "notes: {compare: keys}", "finds no changed row without a cursor"),
        ("cursor: at, ", "", "lookback goes back from a cursor"),
        ("10m", "soon", "stream.yaml:7"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line(
    erp: Queried, project: Path, before: str, after: str, said: str
) -> None:
    text = (project / "stream.yaml").read_text()
    (project / "stream.yaml").write_text(text.replace(before, after, 1))
    with pytest.raises(DeclarationError) as refused:
        document(project)
    assert said in str(refused.value)


def test_a_stream_does_not_change_its_way_by_itself(erp: Queried, project: Path) -> None:
    datops("snapshot")
    text = (project / "stream.yaml").read_text().replace("capture: query", "capture: log")
    (project / "stream.yaml").write_text(text.replace("{cursor: at, lookback: 10m}", "{}"))
    assert "is followed by queries; end that first" in str(datops("drain", expect=1))


def test_what_is_judged_waits_for_the_look_that_is_under_way(erp: Queried, project: Path) -> None:
    """Somebody who asks what changed while a look runs hears of its changes the next time."""
    datops("snapshot")
    mirror, conn = FollowedMirror("erp", "notes"), erp.warehouse.conn
    erp.run("update notes set note = 'b'")
    place = mirror.place(conn)
    conn.execute("update datops.streams set looks = looks + 1")  # a look begins, and dies
    assert mirror.place(conn) == place
    datops("drain")
    changed = mirror.changed(conn, place)
    assert changed is not None
    assert conn.execute(changed).fetchall() == [(1,)]


def test_the_log_lets_go_of_what_is_old_as_declared(erp: Queried, project: Path) -> None:
    file = project / "stream.yaml"
    file.write_text(file.read_text().replace("notes: {}", "notes: {keep: {days: 30}}"))
    datops("snapshot")
    erp.run("update notes set note = 'b'")
    assert datops("drain")["changes_let_go"] == {"notes": 0}
    erp.warehouse.conn.execute("update bronze.erp_notes_changes set _seen_at = now() - interval '31 days'")
    assert datops("drain")["changes_let_go"] == {"notes": 1}
    assert erp.mirror(name="notes") == [(1, "b")]


def test_a_process_looks_on_and_on_and_tells_the_assets(erp: Queried, project: Path) -> None:
    said: list[str] = []
    stopped = threading.Event()
    loaded = document(project)
    key = dg.AssetKey(["bronze", "erp", "notes_changes"])
    with dg.instance_for_test() as instance:
        thread = threading.Thread(
            target=lambda: follow_for_ever(loaded, stopped, say=said.append, every_s=0.05), daemon=True
        )
        thread.start()
        try:
            wait_for(lambda: datops("status").get("looks", 0) > 2)
            erp.run("update notes set note = 'b'")
            wait_for(lambda: instance.get_latest_materialization_event(key) is not None)
        finally:
            stopped.set()
            thread.join(LIMIT_S)
        event = instance.get_latest_materialization_event(key)
    assert not thread.is_alive()
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["changes"].value == 1
    assert any("erp: 1 change(s) in" in line for line in said), said
    assert erp.mirror(name="notes") == [(1, "b")]


def wait_for(happened: Callable[[], bool]) -> None:
    until = time.monotonic() + LIMIT_S
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.05)
