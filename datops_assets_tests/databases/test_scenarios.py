"""How much of what is an attack is found, how soon, and how often somebody is woken for nothing."""

from __future__ import annotations

import inspect
import time
from dataclasses import dataclass
from datetime import datetime

import pytest

from datops_assets.cli.database import watch
from datops_assets.components.alert_route import INTERVAL_S as ROUTE_S
from datops_assets.databases import FileStore
from datops_assets.postgres.migrations import upgrade
from datops_assets.resources.embedded import EmbeddedServer
from datops_assets.resources.warehouse import Warehouse, check_version
from datops_assets_tests.databases.conftest import Teams
from datops_assets_tests.databases.scenarios import (
    ATTACKS,
    HARMLESS,
    OWN_SETTINGS,
    Stage,
    declare,
    fill_orders,
)

pytestmark = [pytest.mark.db_scenario, pytest.mark.slow]
WATCH_S = inspect.signature(watch).parameters["interval_s"].default
"""Between two looks of `datops database watch`."""


@dataclass(frozen=True)
class Outcome:
    """What came of a scenario."""

    seconds: float | None
    """From its beginning to the finding that it is labelled with; None: it was not found, or it is harmless."""
    severity: str
    critical: tuple[str, ...]
    """Everything critical that was seen meanwhile, also where it was over at once."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """A server of its own: settings, pg_hba.conf and the archive are changed here."""
    folder = tmp_path_factory.mktemp("stage")
    embedded = EmbeddedServer(folder / "postgres", durable=False)
    embedded.start()
    (embedded.base / "own.conf").write_text(OWN_SETTINGS)
    with (embedded.data / "pg_hba.conf").open("a") as hba:  # for whoever comes from another network
        hba.write("host all all 127.0.7.0/24 scram-sha-256\n")
    embedded.stop()
    address = embedded.start()
    server = check_version(
        Warehouse(address.host, address.port, address.user, "postgres", address.password, embedded=True)
    )
    teams = Teams(server, FileStore(folder / "secrets"), "stage")
    [[archiving]] = teams.run("show archive_mode")
    assert archiving == "on", "own.conf was not read"
    teams.run("create database catalogue")
    with teams.connect("catalogue") as catalogue:
        upgrade(catalogue)
        made = Stage(teams, catalogue, declare(teams))
        teams.apply(made.sales)
        fill_orders(made)
        made.look()
        yield made
        made.open.close()
    embedded.stop()


@pytest.fixture(scope="module")
def outcomes(stage) -> dict[str, Outcome]:
    """All of them, one after the other: the harmless ones first, while nothing unusual was learned."""
    for name in ("maker", "etl", "bi", "dumper"):  # what is usual
        stage.login(name)
    for _ in range(8):
        stage.do("bi", "select * from main.orders limit 100")
        stage.look()
    found = {}
    for what, act in HARMLESS.items():
        stage.settle()
        [[begun_at]] = stage.catalogue.execute("select clock_timestamp()").fetchall()
        act(stage)
        for _ in range(3):
            stage.look()
            time.sleep(0.1)
        found[what] = Outcome(None, "", _critical(stage, begun_at))
    for what, (kind, act) in ATTACKS.items():
        stage.settle()
        begun = time.monotonic()
        act(stage)
        seen = stage.until(kind)
        found[what] = Outcome(
            None if seen is None else time.monotonic() - begun,
            "" if seen is None else seen.severity,
            (),
        )
    return found


def _critical(stage: Stage, since: datetime) -> tuple[str, ...]:
    rows = stage.catalogue.execute(
        "select kind, subject from datops.findings where severity = 'critical' and last_seen >= %s", (since,)
    )
    return tuple(f"{kind} {subject}" for kind, subject in rows)


@pytest.mark.parametrize("what", ATTACKS)
def test_an_attack_is_found(outcomes, what):
    assert outcomes[what].seconds is not None, f"nothing of the kind {ATTACKS[what][0]} was found"


@pytest.mark.parametrize("what", HARMLESS)
def test_a_harmless_load_raises_nothing_critical(outcomes, what):
    assert outcomes[what].critical == ()


def test_recall_false_alarms_and_the_time_to_an_alert_are_within_what_is_promised(outcomes):
    found = {what: outcomes[what] for what in ATTACKS if outcomes[what].seconds is not None}
    missed = sorted(set(ATTACKS) - set(found))
    false = {what: outcomes[what].critical for what in HARMLESS if outcomes[what].critical}
    slowest = max(found, key=lambda what: found[what].seconds)
    to_alert_s = WATCH_S + found[slowest].seconds + ROUTE_S
    for what, one in found.items():
        print(f"{one.seconds:6.1f} s  {one.severity:8}  {ATTACKS[what][0]:20} {what}")
    print(f"{len(found)} of {len(ATTACKS)} attacks found, missed: {missed or 'none'}")
    print(f"{len(HARMLESS)} harmless loads, {len(false)} with a critical finding: {false or 'none'}")
    print(f"slowest: {slowest}; at most {to_alert_s:.0f} s to its alert")
    assert len(ATTACKS) >= 12
    assert len(HARMLESS) >= 12
    assert len(found) >= 0.95 * len(ATTACKS)
    assert false == {}
    assert to_alert_s <= 60


def test_no_finding_repeats_a_password_or_a_cell(stage, outcomes):
    texts = str(stage.catalogue.execute("select summary, evidence, subject from datops.findings").fetchall())
    assert "user7" not in texts
    assert "guess" not in texts
    assert "a pen" not in texts


def test_findings_about_a_team_say_whose_they_are(stage, outcomes):
    of_team = {
        kind
        for (kind,) in stage.catalogue.execute("select kind from datops.findings where team = 'commerce'")
    }
    assert {"privilege", "mass_change", "exfiltration", "lock_queue", "break_in", "grant"} <= of_team
    of_nobody = {
        kind for (kind,) in stage.catalogue.execute("select kind from datops.findings where team = ''")
    }
    assert {"hba", "setting", "slot", "archive"} <= of_nobody
