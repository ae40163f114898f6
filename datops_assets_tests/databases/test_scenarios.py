"""How much of what is an attack is found, how soon, and how often somebody is woken for nothing."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

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
    FEW,
    HARMLESS,
    OWN_SETTINGS,
    Stage,
    declare,
    fill_orders,
)

pytestmark = pytest.mark.db_scenario
WATCH_S = inspect.signature(watch).parameters["interval_s"].default
"""Between two looks of `datops database watch`."""


@dataclass(frozen=True)
class Outcome:
    """What came of a scenario."""

    seconds: float | None
    """From when it was done to the finding that it is labelled with; None: it was not found, or it is harmless.

    How long an attacker needs for twelve passwords is not counted: that depends on the machine.
    """
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


class Played:
    """Scenarios, each played once, when it is first asked for."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self._outcomes: dict[str, Outcome] = {}
        for name in ("maker", "etl", "bi", "dumper"):  # what is usual
            stage.login(name)
        for _ in range(8):
            stage.do("bi", "select * from main.orders limit 100")
            stage.look()

    def load(self, what: str) -> Outcome:
        """A harmless one."""
        if what not in self._outcomes:
            self.stage.settle()
            [[begun_at]] = self.stage.catalogue.execute("select clock_timestamp()").fetchall()
            HARMLESS[what](self.stage)
            for _ in range(3):
                self.stage.look()
                time.sleep(0.1)
            self._outcomes[what] = Outcome(None, "", _critical(self.stage, begun_at))
        return self._outcomes[what]

    def attack(self, what: str) -> Outcome:
        """One that has to be found."""
        if what not in self._outcomes:
            kind, act = ATTACKS[what]
            self.stage.settle()
            act(self.stage)
            done = time.monotonic()  # what lasts has begun by now, what does not is over
            seen = self.stage.until(kind)
            self._outcomes[what] = Outcome(
                None if seen is None else time.monotonic() - done, "" if seen is None else seen.severity, ()
            )
        return self._outcomes[what]


@pytest.fixture(scope="module")
def played(stage) -> Played:
    """The harmless ones come first: nothing unusual was learned by then."""
    return Played(stage)


def _critical(stage: Stage, since: datetime) -> tuple[str, ...]:
    rows = stage.catalogue.execute(
        "select kind, subject from datops.findings where severity = 'critical' and last_seen >= %s", (since,)
    )
    return tuple(f"{kind} {subject}" for kind, subject in rows)


def few_at_once(names: Iterable[str]) -> list[Any]:
    """All of them; slow but for a few."""
    return [pytest.param(name, marks=() if name in FEW else pytest.mark.slow) for name in names]


@pytest.mark.parametrize("what", few_at_once(HARMLESS))
def test_a_harmless_load_raises_nothing_critical(played, what):
    assert played.load(what).critical == ()


@pytest.mark.parametrize("what", few_at_once(ATTACKS))
def test_an_attack_is_found(played, what):
    assert played.attack(what).seconds is not None, f"nothing of the kind {ATTACKS[what][0]} was found"


@pytest.mark.slow
def test_recall_false_alarms_and_the_time_to_an_alert_are_within_what_is_promised(played, capsys):
    loads = {what: played.load(what) for what in HARMLESS}
    attacks = {what: played.attack(what) for what in ATTACKS}
    found = {what: one.seconds for what, one in attacks.items() if one.seconds is not None}
    missed = sorted(set(attacks) - set(found))
    false = {what: one.critical for what, one in loads.items() if one.critical}
    recall = len(found) / len(attacks)
    slowest = max(found, key=lambda what: found[what])
    to_alert_s = WATCH_S + found[slowest] + ROUTE_S
    with capsys.disabled():
        print()
        for what, seconds in found.items():
            print(f"{seconds:6.1f} s  {attacks[what].severity:8}  {ATTACKS[what][0]:20} {what}")
        print(f"recall {recall:.0%}: {len(found)} of {len(attacks)} attacks; missed: {missed or 'none'}")
        print(f"false criticals {len(false)} of {len(loads)} harmless loads: {false or 'none'}")
        print(f"slowest time to an alert {to_alert_s:.0f} s: {slowest}")
    assert min(len(ATTACKS), len(HARMLESS)) >= 12
    assert recall >= 0.95
    assert false == {}
    assert to_alert_s <= 60


def test_no_finding_repeats_a_password_or_a_cell(stage, played):
    played.attack("passwords of one role are tried")
    texts = str(stage.catalogue.execute("select summary, evidence, subject from datops.findings").fetchall())
    assert "logins of role" in texts
    assert "user7" not in texts
    assert "guess" not in texts
    assert "a pen" not in texts


@pytest.mark.slow
def test_findings_about_a_team_say_whose_they_are(stage, played):
    for what in ATTACKS:
        played.attack(what)
    of_team = {
        kind
        for (kind,) in stage.catalogue.execute("select kind from datops.findings where team = 'commerce'")
    }
    assert {"privilege", "mass_change", "exfiltration", "lock_queue", "break_in", "grant"} <= of_team
    of_nobody = {
        kind for (kind,) in stage.catalogue.execute("select kind from datops.findings where team = ''")
    }
    assert {"hba", "setting", "slot", "archive"} <= of_nobody
