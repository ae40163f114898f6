"""Brings a message to one place: a webhook by our own sender, or by a plug-in's, everything else by Apprise.

Our own sender stays for webhooks because it tells what may succeed later from what never will, obeys
Retry-After and refuses redirects; Apprise knows Slack, e-mail, PagerDuty and a hundred others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from urllib.parse import urlsplit

from datops_assets.errors import DatopsError, RetryableError
from datops_assets.telemetry.alerts import Message
from datops_assets.telemetry.channel import Channel
from datops_assets.telemetry.failure_webhook import (
    ATTEMPTS,
    FIRST_PAUSE_S,
    Delivery,
    post_message,
)
from datops_assets.telemetry.redaction import redact

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
    title, body = redact(message.title, secrets), redact(message.body, secrets)
    scheme = urlsplit(address).scheme
    if scheme in ("http", "https"):
        facts = {
            "event": "resolved" if message.resolved else "alert",
            "text": f"{title}\n{body}",
            "route": message.route,
            "severity": message.severity,
            "title": title,
            "alerts": [{"kind": kind, "subject": redact(subject, secrets)} for kind, subject in message.keys],
        }
        return post_message(address, facts, first_pause_s=first_pause_s, sleep=sleep)
    try:
        channel = find_channel(scheme)
    except DatopsError as error:
        return Delivery(False, 0, str(error))
    if channel is not None:
        lines = tuple(redact(line, secrets) for line in message.lines)
        keys = tuple((kind, redact(subject, secrets)) for kind, subject in message.keys)
        told = replace(message, title=title, lines=lines, keys=keys)
        return _by_plugin(channel, address, told, first_pause_s, sleep)
    return _by_apprise(address, title, body, message, first_pause_s, sleep)


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
    title: str,
    body: str,
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
            if sender.notify(body=body, title=title, notify_type=kind):
                return Delivery(True, attempt)
        except Exception as error:  # as above; its text may quote the address
            return Delivery(False, attempt, f"the message could not be sent ({type(error).__name__})")
        if attempt < ATTEMPTS:
            sleep(first_pause_s * 2 ** (attempt - 1))
    return Delivery(False, ATTEMPTS, f"the receiver did not take it ({urlsplit(address).scheme})")
