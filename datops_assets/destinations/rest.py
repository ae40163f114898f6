"""An API as a destination: batches of rows as JSON, each with an idempotency key.

At least once: an API that does not look at the key may take a batch twice, when its answer was lost.
One that does takes each batch once: the key names the delivery and the batch, and stays on every try.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import httpx

from datops_assets.destinations.destination import Delivered, Destination
from datops_assets.destinations.rows import Rows
from datops_assets.errors import DestinationRefusedError, DestinationUnreachableError
from datops_assets.postgres.failpoints import hit

_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST_WAIT_S = 60.0


@dataclass(frozen=True)
class RestTarget:
    """One endpoint."""

    url: str
    method: Literal["POST", "PUT"] = "POST"
    batch_rows: int = 500


class RestDestination(Destination[RestTarget]):
    """An HTTP API that takes JSON arrays."""

    def __init__(
        self,
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float = 30,
        tries: int = 5,
        wait_s: float = 1,
    ) -> None:
        # Redirects are not followed: rows and credentials go where the document says, nowhere else.
        self._client = httpx.Client(headers=dict(headers or {}), timeout=timeout_s, follow_redirects=False)
        self._tries = tries
        self._wait_s = wait_s

    def deliver(self, rows: Rows, target: RestTarget, marker: str) -> Delivered:
        """Send every batch, each until it is taken or the tries are used up."""
        sent = 0
        for number, body in enumerate(rows.json_batches(target.batch_rows)):
            key = hashlib.sha256(f"{marker}:{target.url}:{number}".encode()).hexdigest()[:40]
            self._send(target, body, key)
            sent += 1
            hit("export.sent")
        return Delivered(rows.count(), _shown(target.url), changed=sent > 0)

    def _send(self, target: RestTarget, body: bytes, key: str) -> None:
        headers = {"content-type": "application/json", "idempotency-key": key}
        said = ""
        for number in range(1, self._tries + 1):
            waited: str | None = None
            try:
                answer = self._client.request(target.method, target.url, content=body, headers=headers)
            except httpx.HTTPError as error:
                said = type(error).__name__
            else:
                if answer.is_success:
                    return
                said, waited = f"HTTP {answer.status_code}", answer.headers.get("retry-after")
                if answer.status_code not in _AGAIN:
                    raise DestinationRefusedError(
                        f"{_shown(target.url)} refuses a batch ({said}); batches before it were taken"
                    )
            if number < self._tries:
                time.sleep(self._pause(number, waited))
        raise DestinationUnreachableError(
            f"{_shown(target.url)} did not take a batch in {self._tries} tries ({said}); batches before it were taken"
        )

    def _pause(self, number: int, asked: str | None) -> float:
        if asked and asked.isdigit():
            return min(float(asked), _LONGEST_WAIT_S)
        return min(self._wait_s * 2 ** (number - 1), _LONGEST_WAIT_S) * random.uniform(0.75, 1.25)  # noqa: S311

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _shown(url: str) -> str:
    """Without what may be a secret: user, password, query."""
    parts = httpx.URL(url)
    return f"{parts.scheme}://{parts.host}{f':{parts.port}' if parts.port else ''}{parts.path}"
