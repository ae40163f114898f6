"""Alerts: what is told when, for any order of events; and delivery to real receivers on this machine."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datops_assets.telemetry.alerts import (
    Alert,
    Event,
    Message,
    QuietHours,
    Route,
    decide,
    from_json,
    to_json,
    unsent,
)
from datops_assets.telemetry.delivery import deliver

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
NIGHT = QuietHours(time(22), time(7))
kinds = st.sampled_from(["run_failed", "finding"])
events = st.builds(
    Event, kinds, st.sampled_from(["a", "b", "c"]), st.sampled_from(["info", "warning", "critical"]), st.just("said"),
    st.just(NOON), st.sampled_from(["sales", "web"]), st.none(), st.booleans(), st.booleans(),
)  # fmt: skip
ticks = st.lists(st.tuples(st.lists(events, max_size=4), st.integers(1, 600)), max_size=12)
routes = st.builds(
    Route, st.just("r"), st.sampled_from(["info", "warning", "critical"]), st.sampled_from([(), ("sales",)]),
    group_by=st.sampled_from([(), ("team",), ("team", "kind"), ("kind", "subject")]),
    repeat=st.sampled_from([None, timedelta(hours=1)]), tell_resolved=st.booleans(),
    quiet=st.sampled_from([None, NIGHT]),
)  # fmt: skip


def run(route, ticks):
    """Every decision, with its time."""
    known, now, said = {}, NOON, []
    for found, minutes in ticks:
        now += timedelta(minutes=minutes)
        done = decide(route, known, found, now)
        said.append((now, found, known, done))
        known = done.open
    return said


@given(routes, ticks)
def test_only_what_a_route_is_for_is_told_and_nothing_but_critical_in_quiet_hours(route, ticks):
    for now, _, _, done in run(route, ticks):
        for message in done.messages:
            if route.quiet and route.quiet.hold(now):
                assert message.severity == "critical"
                assert not message.resolved
            assert route.tell_resolved or not message.resolved


@given(routes, ticks)
def test_an_alert_is_told_once_until_it_is_over_gets_worse_or_its_time_to_repeat_has_come(route, ticks):
    told: dict[tuple[str, str], tuple[datetime, str]] = {}
    rank = {"info": 0, "warning": 1, "critical": 2}
    for now, found, known, done in run(route, ticks):
        over = {(one.kind, one.subject) for one in found if one.over}
        for message in done.messages:
            for key in message.keys:
                if message.resolved:
                    assert key in told, "nobody was told that it began"
                elif key in told and key in known and key not in over and known[key].event.lasts:
                    at, severity = told[key]
                    now_severity = done.told[key].event.severity
                    worse = rank[now_severity] > rank[severity]
                    late = route.repeat is not None and now - at >= route.repeat
                    assert worse or late
                if not message.resolved and done.told[key].event.lasts:
                    told[key] = (now, done.told[key].event.severity)
                elif not message.resolved:  # it happened and that was that: the next one is another
                    told.pop(key, None)


@given(routes, ticks)
def test_each_alert_of_a_moment_is_in_one_message_and_groups_hold_what_belongs_together(route, ticks):
    for _, _, _, done in run(route, ticks):
        keys = [key for message in done.messages if not message.resolved for key in message.keys]
        assert len(keys) == len(set(keys))
        assert set(keys) == set(done.told)


@given(routes, ticks)
def test_what_quiet_hours_held_back_is_told_when_they_are_over(route, ticks):
    last = run(route, ticks)[-1:] or [(NOON, [], {}, decide(route, {}, [], NOON))]
    waiting = {key for key, one in last[0][3].open.items() if one.told_at is None}
    morning = (last[0][0] + timedelta(days=1)).replace(hour=12)
    told = {key for message in decide(route, last[0][3].open, [], morning).messages for key in message.keys}
    assert waiting <= told


@given(routes, ticks)
def test_what_did_not_arrive_is_told_at_the_next_time(route, ticks):
    daily = Route(route.name, route.severity, route.teams, group_by=route.group_by, repeat=None)
    known: dict = {}
    for number, (found, _) in enumerate(ticks):
        done = decide(daily, known, found, NOON + timedelta(minutes=number))
        kept = unsent(known, done, done.messages)
        again = decide(daily, kept, [], NOON + timedelta(minutes=number))
        lost = {(key, one.resolved) for one in done.messages for key in one.keys}
        assert lost <= {(key, one.resolved) for one in again.messages for key in one.keys}
        known = done.open


@given(events, st.none() | st.just(NOON), st.integers(1, 9))
def test_memory_survives_being_written(event, told, count):
    alert = Alert(event, told, "warning" if told else None, count)
    assert from_json(json.loads(json.dumps(to_json(alert)))) == alert


def lasting(severity: str = "warning", subject: str = "slot", **more) -> Event:
    return Event("finding_slot", subject, severity, "it keeps the log", NOON, **more)


def told_at(route: Route, minutes: dict[int, list[Event]], until: int) -> list[tuple[int, str]]:
    """Minute and severity of each message, where `minutes` says what happened when."""
    known, said = {}, []
    for minute in range(until + 1):
        done = decide(route, known, minutes.get(minute, []), NOON + timedelta(minutes=minute))
        known = done.open
        said += [(minute, "over" if one.resolved else one.severity) for one in done.messages]
    return said


def test_what_lasts_is_told_again_after_the_time_of_its_route_and_never_where_it_has_none():
    hourly = Route("r", repeat=timedelta(hours=1))
    assert told_at(hourly, {0: [lasting()]}, 130) == [(0, "warning"), (60, "warning"), (120, "warning")]
    assert told_at(replace(hourly, repeat=None), {0: [lasting()]}, 130) == [(0, "warning")]
    once = {0: [lasting(lasts=False)]}
    assert told_at(hourly, once, 130) == [(0, "warning")]


def test_how_often_it_came_meanwhile_stands_in_what_is_told_again():
    route, known = Route("r", repeat=timedelta(hours=1)), {}
    for minute in (0, 20, 40, 60):
        done = decide(route, known, [lasting()], NOON + timedelta(minutes=minute))
        known = done.open
    assert done.messages[0].body == "slot: it keeps the log (4 times)"


def test_what_swings_is_told_again_only_where_it_is_worse_than_it_was_told():
    swings = {0: [lasting()], 1: [lasting("info")], 2: [lasting()], 3: [lasting("critical"), lasting()],
              4: [lasting("critical")], 5: [lasting()], 6: [lasting("critical")], 7: [lasting(over=True)]}  # fmt: skip
    route = Route("r", severity="info")
    assert told_at(route, swings, 8) == [(0, "warning"), (4, "critical"), (7, "over")]


@pytest.mark.parametrize(
    ("filters", "taken"),
    [
        ({"subjects": ("erp*",)}, ["erp_slot"]), ({"teams": ("s?les", "x")}, ["erp_slot"]),
        ({"kinds": ("run_*", "drill")}, []), ({"kinds": ("finding_*",), "subjects": ("web_*", "x")}, ["web_slot"]),
        ({"severity": "critical"}, ["web_slot"]),
    ],
)  # fmt: skip
def test_a_route_takes_what_fits_all_of_its_patterns(filters, taken):
    events = [lasting(subject="erp_slot", team="sales"), lasting("critical", "web_slot", team="web")]
    done = decide(Route("r", **filters), {}, events, NOON)
    assert sorted(subject for one in done.messages for _, subject in one.keys) == taken


@pytest.mark.parametrize(
    ("group_by", "groups"),
    [((), [3]), (("team",), [1, 2]), (("subject",), [1, 1, 1]), (("kind", "severity"), [1, 2])],
)
def test_what_belongs_together_by_the_words_of_the_route_is_one_message(group_by, groups):
    events = [
        lasting(subject="a", team="x"),
        lasting(subject="b", team="x"),
        lasting("critical", "c", team="y"),
    ]
    done = decide(Route("r", group_by=group_by), {}, events, NOON)
    assert sorted(len(one.alerts) for one in done.messages) == groups


def test_in_quiet_hours_only_what_is_critical_is_told_and_the_rest_when_they_are_over():
    quiet = Route("r", quiet=QuietHours(time(12), time(13)))
    night = {1: [lasting()], 2: [lasting("critical", "other")], 3: [lasting("critical", "other", over=True)]}
    assert told_at(quiet, night, 70) == [(2, "critical"), (60, "warning"), (60, "over")]
    worse = {1: [lasting()], 2: [lasting("critical")]}
    assert told_at(quiet, worse, 70) == [(2, "critical")]


def test_quiet_hours_go_over_midnight_in_their_own_zone():
    berlin = QuietHours(time(22), time(7), "Europe/Berlin")
    assert berlin.hold(datetime(2026, 1, 1, 21, 30, tzinfo=UTC))
    assert not berlin.hold(datetime(2026, 1, 1, 20, 30, tzinfo=UTC))
    assert not QuietHours(time(12), time(13)).hold(datetime(2026, 1, 1, 13, tzinfo=UTC))


EVENT = Event(
    "run_failed", "shop", "critical", "cannot log in as password=hunter2 with T0P", NOON, "sales",
    lasts=False, facts={"run_id": "0f3a", "cause": "T0P", "tables": 3},
)  # fmt: skip
MESSAGE = Message("ops", "critical", "critical: run failed shop (sales)", (Alert(EVENT),))


@pytest.fixture
def receiver():
    """A real HTTP server; `answers` are given one after the other, the last one for good."""
    got: list[tuple[str, dict]] = []
    answers = [200]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(answers.pop(0) if len(answers) > 1 else answers[0])
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")  # Slack's whole answer

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", got, answers
        server.shutdown()


@pytest.mark.parametrize("scheme", ["http", "json"])
def test_a_receiver_gets_the_message_without_secrets_after_a_failure_that_passes(receiver, scheme):
    address, got, answers = receiver
    answers[:] = [503, 200]
    done = deliver(f"{scheme}://{address}/hooks/K3Y", MESSAGE, secrets=["T0P"], sleep=lambda _: None)
    assert (done.delivered, done.attempts) == (True, 2)
    assert len(got) == 2
    said = json.dumps(got[-1][1])
    assert "cannot log in" in said
    assert "hunter2" not in said
    assert "T0P" not in said


@pytest.mark.parametrize("scheme", ["http", "json"])
def test_a_receiver_that_refuses_is_given_up_on_and_its_address_is_in_no_reason(receiver, scheme):
    address, got, answers = receiver
    answers[:] = [500]
    done = deliver(f"{scheme}://{address}/hooks/K3Y", MESSAGE, sleep=lambda _: None)
    assert not done.delivered
    assert len(got) == 3
    assert "K3Y" not in str(done)
    assert address not in str(done)


@pytest.fixture
def chat(receiver, monkeypatch):
    """Slack's webhooks and PagerDuty's events, received here: only the host is another."""
    from apprise.plugins import pagerduty, slack

    address, got, answers = receiver
    monkeypatch.setattr(slack.NotifySlack, "webhook_url", f"http://{address}/services")
    places = dict.fromkeys(pagerduty.PAGERDUTY_API_LOOKUP, f"http://{address}/v2/enqueue")
    monkeypatch.setattr(pagerduty, "PAGERDUTY_API_LOOKUP", places)
    monkeypatch.setattr(slack.NotifySlack, "request_rate_per_sec", 0)
    monkeypatch.setattr(pagerduty.NotifyPagerDuty, "request_rate_per_sec", 0)
    return got, answers


SLACK = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#ops"
PAGER = "pagerduty://" + "K3Y" * 10 + "ab@" + "A" * 20


def test_slack_gets_a_payload_of_its_incoming_webhooks(chat):
    """source: Slack, "Sending messages using incoming webhooks": text or attachments, a channel."""
    got, answers = chat
    answers[:] = [200]
    assert deliver(SLACK, MESSAGE, sleep=lambda _: None).delivered
    [(path, payload)] = got
    assert path == "/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
    assert payload["channel"] == "#ops"
    [attachment] = payload["attachments"]
    assert "run failed shop" in json.dumps(attachment)
    assert "cannot log in" in json.dumps(attachment)
    assert "hunter2" not in json.dumps(payload)
    assert attachment["color"].startswith("#")


def test_each_alert_is_an_incident_of_pagerduty_that_its_end_resolves(chat):
    """source: PagerDuty, "Events API v2": the required keys of trigger and resolve, and one dedup_key."""
    got, answers = chat
    answers[:] = [202]
    other = Alert(replace(EVENT, subject="web", severity="warning"))
    both = replace(MESSAGE, alerts=(*MESSAGE.alerts, other))
    assert deliver(PAGER, both, sleep=lambda _: None).delivered
    assert deliver(PAGER, replace(MESSAGE, resolved=True), sleep=lambda _: None).delivered
    triggered, second, resolved = [payload for _, payload in got]
    for payload in (triggered, second):
        assert payload["event_action"] == "trigger"
        assert set(payload["payload"]) >= {"summary", "source", "severity"}
        assert len(payload["payload"]["summary"]) <= 1024
        assert "hunter2" not in json.dumps(payload)
    assert [one["payload"]["severity"] for one in (triggered, second)] == ["critical", "warning"]
    assert resolved == {
        "routing_key": triggered["routing_key"],
        "event_action": "resolve",
        "dedup_key": triggered["dedup_key"],
    }
    assert second["dedup_key"] != triggered["dedup_key"]


@pytest.mark.parametrize("address", [SLACK, PAGER])
def test_a_chat_that_is_away_for_a_moment_is_tried_again_and_its_address_never_shown(chat, address, caplog):
    got, answers = chat
    answers[:] = [500, 503, 202 if address == PAGER else 200]
    done = deliver(address, MESSAGE, sleep=lambda _: None)
    assert (done.delivered, done.attempts, len(got)) == (True, 3, 3)
    answers[:] = [403]
    done = deliver(address, MESSAGE, sleep=lambda _: None)
    assert not done.delivered
    assert "K3Y" not in f"{done}{caplog.text}"
    assert "TIiajkdnlazkcOXrIdevi7FQ" not in f"{done}{caplog.text}"


def test_a_program_gets_each_alert_with_its_facts_and_no_secret(receiver):
    address, got, _ = receiver
    assert deliver(f"http://{address}/", MESSAGE, secrets=["T0P"], sleep=lambda _: None).delivered
    [(_, said)] = got
    assert {name: said[name] for name in ("event", "route", "severity")} == {
        "event": "alert", "route": "ops", "severity": "critical",
    }  # fmt: skip
    [alert] = said["alerts"]
    assert alert["facts"] == {"run_id": "0f3a", "cause": "***", "tables": 3}
    assert alert["summary"] == "cannot log in as password=*** with ***"
    assert (alert["at"], alert["team"], alert["times"]) == (NOON.isoformat(), "sales", 1)


def test_many_alerts_are_lines_up_to_a_number_and_a_long_one_is_cut():
    many = replace(MESSAGE, alerts=MESSAGE.alerts * 30)
    assert many.lines[-1] == "and 10 more"
    long = replace(MESSAGE, alerts=(Alert(replace(EVENT, summary="x" * 10_000)),))
    assert len(long.body) < 600


def test_an_address_that_is_none_is_said_without_repeating_it():
    done = deliver("nonsense://K3Y@@@", MESSAGE, sleep=lambda _: None)
    assert not done.delivered
    assert "K3Y" not in str(done)


def test_mail_arrives_at_a_real_mail_server_that_is_busy_at_first():
    from aiosmtpd.controller import Controller

    class Box:
        def __init__(self) -> None:
            self.mails: list = []
            self.busy = 1

        async def handle_DATA(self, server, session, envelope):  # noqa: N802 - aiosmtpd's name
            if self.busy:
                self.busy -= 1
                return "451 try again later"
            self.mails.append(envelope)
            return "250 OK"

    box = Box()
    controller = Controller(box, hostname="127.0.0.1", port=0)
    controller.server_kwargs = {}
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        controller.port = probe.getsockname()[1]
    controller.start()
    try:
        address = (
            f"mailto://127.0.0.1:{controller.port}?from=datops@example.com&to=ops@example.com&mode=insecure"
        )
        done = deliver(address, MESSAGE, secrets=["T0P"], sleep=lambda _: None)
        assert (done.delivered, done.attempts) == (True, 2)
    finally:
        controller.stop()
    [mail] = box.mails
    assert mail.rcpt_tos == ["ops@example.com"]
    assert b"run failed shop" in mail.content
    assert b"hunter2" not in mail.content
    assert b"T0P" not in mail.content
