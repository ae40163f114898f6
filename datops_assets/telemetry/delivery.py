"""Brings a message to one place: a webhook by our own sender, or by a plug-in's, everything else by Apprise.

Our own sender stays for webhooks because it tells what may succeed later from what never will, obeys
Retry-After and refuses redirects; Apprise knows Slack, e-mail, PagerDuty and a hundred others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from datops_assets.errors import DatopsError, RetryableError
from datops_assets.telemetry.alerts import Message
from datops_assets.telemetry.channel import Channel
from datops_assets.telemetry.redaction import redact
from datops_assets.telemetry.webhook import ATTEMPTS, FIRST_PAUSE_S, Delivery, post_message

_TYPES = {"info": "info", "warning": "warning", "critical": "failure"}


def deliver(
    address: str,
    message: Message,
    *,
    secrets: Collection[str] = (),
    find_channel: Callable[[str], Channel | None] = lambda scheme: None,
    first_pause_s: float = FIRST_PAUSE_S,
    sleep: Callable[[float], None] = time.sleep,
) -> Delivery:
    """Bring a message to an address, with up to three tries.

    address    `https://…` for a webhook, else one of Apprise's (`slack://…`, `mailto://…`); the secret itself
    secrets    blanked wherever they stand in the message
    find_channel  gives the plug-in for addresses that begin so, or raises DatopsError
    returns    whether it arrived; the reason names neither the address nor a part of it
    raises     nothing: telling must not fail the teller
    """
    told = _redacted(message, secrets)
    scheme = urlsplit(address).scheme
    if scheme in ("http", "https"):
        return post_message(address, as_json(told), first_pause_s=first_pause_s, sleep=sleep)
    try:
        channel = find_channel(scheme)
    except DatopsError as error:
        return Delivery(False, 0, str(error))
    if channel is not None:
        return _by_plugin(channel, address, told, first_pause_s, sleep)
    if scheme == "pagerduty":
        return _to_pagerduty(address, told, first_pause_s, sleep)
    return _by_apprise(address, told, first_pause_s, sleep)


def as_json(message: Message) -> dict[str, Any]:
    """A message for programs; `text` is what chats show."""
    return {
        "event": "resolved" if message.resolved else "alert",
        "text": f"{message.title}\n{message.body}",
        "route": message.route,
        "severity": message.severity,
        "title": message.title,
        "alerts": [
            {
                "kind": one.event.kind, "subject": one.event.subject, "severity": one.event.severity,
                "summary": one.event.summary, "at": one.event.at.isoformat(), "team": one.event.team,
                "url": one.event.url, "times": one.count, "facts": dict(one.event.facts),
            }
            for one in message.alerts
        ],
    }  # fmt: skip


def _redacted(message: Message, secrets: Collection[str]) -> Message:
    def blank(value: Any) -> Any:
        return redact(value, secrets) if isinstance(value, str) else value

    alerts = tuple(
        replace(
            one,
            event=replace(
                one.event, subject=blank(one.event.subject), summary=blank(one.event.summary),
                facts={name: blank(value) for name, value in one.event.facts.items()},
            ),
        )
        for one in message.alerts
    )  # fmt: skip
    return replace(message, title=blank(message.title), alerts=alerts)


def _to_pagerduty(
    address: str, message: Message, first_pause_s: float, sleep: Callable[[float], None]
) -> Delivery:
    """One incident for each alert, which its end resolves: both carry the same key.

    source    PagerDuty, "Events API v2": dedup_key, event_action
    """
    done = Delivery(True, 0)
    for one in message.alerts:
        key = sha256("\n".join((message.route, *one.key)).encode()).hexdigest()
        action = f"action={'resolve' if message.resolved else 'trigger'}&dedup={key}"
        name = f"{one.event.kind.replace('_', ' ')} {one.event.subject}"
        alone = replace(message, title=name, severity=one.event.severity, alerts=(one,))
        told = _by_apprise(f"{address}{'&' if '?' in address else '?'}{action}", alone, first_pause_s, sleep)
        done = told if done.delivered else done
    return done


def _by_plugin(
    channel: Channel, address: str, message: Message, first_pause_s: float, sleep: Callable[[float], None]
) -> Delivery:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            channel.send(address, message)
        except RetryableError:
            if attempt < ATTEMPTS:
                sleep(first_pause_s * 2 ** (attempt - 1))
        except Exception as error:  # whatever a stranger's code raises; its text may quote the address
            return Delivery(False, attempt, f"the message could not be sent ({type(error).__name__})")
        else:
            return Delivery(True, attempt)
    return Delivery(False, ATTEMPTS, f"the receiver did not take it ({channel.scheme})")


def _by_apprise(
    address: str,
    message: Message,
    first_pause_s: float,
    sleep: Callable[[float], None],
) -> Delivery:
    from apprise import Apprise, NotifyType

    # Its own log repeats addresses; what matters of it is in the result.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    sender = Apprise()
    try:
        known = sender.add(address)
    except Exception:  # whatever a plug-in makes of a text that it cannot read
        known = False
    if not known:
        return Delivery(False, 0, "the address is none that Apprise knows")
    kind = NotifyType.SUCCESS if message.resolved else NotifyType(_TYPES[message.severity])
    for attempt in range(1, ATTEMPTS + 1):
        try:
            if sender.notify(body=message.body, title=message.title, notify_type=kind):
                return Delivery(True, attempt)
        except Exception as error:  # as above; its text may quote the address
            return Delivery(False, attempt, f"the message could not be sent ({type(error).__name__})")
        if attempt < ATTEMPTS:
            sleep(first_pause_s * 2 ** (attempt - 1))
    return Delivery(False, ATTEMPTS, f"the receiver did not take it ({urlsplit(address).scheme})")
