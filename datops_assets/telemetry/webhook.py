"""Posts one JSON message to one HTTP address, again where that may help."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

TIMEOUT_S: Final = 10.0
ATTEMPTS: Final = 3
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0


@dataclass(frozen=True)
class Delivery:
    """Whether a message arrived; `reason` says in words why not, without the address."""

    delivered: bool
    attempts: int
    reason: str | None = None


def post_message(
    url: str,
    message: Mapping[str, Any],
    *,
    timeout_s: float = TIMEOUT_S,
    first_pause_s: float = FIRST_PAUSE_S,
    sleep: Callable[[float], None] = time.sleep,
) -> Delivery:
    """POST `message` to `url`, again after a pause when that may help; blanking secrets is the caller's.

    url        the secret itself for most services: it is in no result and no log line
    returns    whether a 2xx came back, after how many attempts
    raises     nothing: telling about a failure must not fail the teller
    promise    at least once: a receiver whose answer got lost is told again
    """
    try:
        request = _build_request(url, json.dumps(message).encode())
    except Exception as error:
        return Delivery(False, 0, f"the message could not be made ({type(error).__name__})")
    if request is None:
        return Delivery(False, 0, "the webhook address is not an http or https URL with a host")
    for attempt in range(1, ATTEMPTS + 1):
        answer = _post_once(request, timeout_s)
        if answer.delivered:
            return Delivery(True, attempt)
        if not answer.may_succeed_later or attempt == ATTEMPTS:
            break
        pause_s = (
            answer.retry_after_s if answer.retry_after_s is not None else first_pause_s * 2 ** (attempt - 1)
        )
        sleep(min(pause_s, LONGEST_PAUSE_S))
    return Delivery(False, attempt, answer.reason)


@dataclass(frozen=True)
class _Answer:
    delivered: bool
    reason: str = ""
    may_succeed_later: bool = True
    retry_after_s: float | None = None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected POST turns into a GET without its body: better to say that it failed."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        """Follow nothing; the 3xx comes back as an HTTPError."""


def _build_request(url: str, body: bytes) -> urllib.request.Request | None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    headers = {"Content-Type": "application/json", "User-Agent": "datops"}
    return urllib.request.Request(url, body, headers, method="POST")  # noqa: S310 the scheme was checked above


def _post_once(request: urllib.request.Request, timeout_s: float) -> _Answer:
    try:
        # The opener is made here because it looks up the proxies of this moment.
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=timeout_s) as response:
            return _judge(response.status, None)
    except urllib.error.HTTPError as error:
        with error:
            return _judge(error.code, error.headers.get("Retry-After"))
    except TimeoutError:
        return _Answer(False, f"the webhook did not answer within {timeout_s:g} s")
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            return _Answer(False, f"the webhook did not answer within {timeout_s:g} s")
        return _Answer(False, f"the webhook could not be reached ({type(error.reason).__name__})")
    except (OSError, http.client.HTTPException, ValueError) as error:
        # Their texts may quote the address: the kind has to do.
        return _Answer(False, f"the webhook could not be reached ({type(error).__name__})")


def _judge(status: int, retry_after: str | None) -> _Answer:
    if 200 <= status < 300:
        return _Answer(True)
    later = status in (408, 425, 429) or status >= 500
    pause_s = float(retry_after) if retry_after and retry_after.isascii() and retry_after.isdigit() else None
    return _Answer(False, f"the webhook answered {status}", later, pause_s)
