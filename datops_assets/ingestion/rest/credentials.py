"""Who we are to an API: put on each request to its own host, and on no other.

Secrets are asked for when a request is made and never kept in a text that could be shown.
"""

from __future__ import annotations

import base64
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx

from datops_assets.errors import SourceRefusedError

Secret = Callable[[], str]
"""Gives a secret when it is needed; raises TerminalError where it is not set."""
Ask = Callable[[httpx.Request], dict[str, Any]]
"""Sends a request as it is and returns the JSON object of the answer."""

_RENEW_BEFORE_S = 60.0
_TOKEN_LASTS_S = 300.0


class Credentials(ABC):
    """What makes a request ours."""

    @abstractmethod
    def sign(self, url: httpx.URL, headers: httpx.Headers, ask: Ask) -> httpx.URL:
        """Put the secret on: into `headers`, or into the URL that is returned."""

    def renew(self, headers: httpx.Headers) -> bool:
        """Hear that a request with these headers was refused; return whether another try makes sense."""
        return False

    def hide(self, url: httpx.URL) -> httpx.URL:
        """Return the URL without what is secret in it."""
        return url


@dataclass(frozen=True)
class Basic(Credentials):
    """A user and a password."""

    user: str
    password: Secret = field(repr=False)

    def sign(self, url: httpx.URL, headers: httpx.Headers, ask: Ask) -> httpx.URL:
        """Into the header Authorization."""
        headers["Authorization"] = _basic(self.user, self.password())
        return url


@dataclass(frozen=True)
class Bearer(Credentials):
    """A token that somebody made."""

    token: Secret = field(repr=False)

    def sign(self, url: httpx.URL, headers: httpx.Headers, ask: Ask) -> httpx.URL:
        """Into the header Authorization."""
        headers["Authorization"] = f"Bearer {_plain(self.token())}"
        return url


@dataclass(frozen=True)
class ApiKey(Credentials):
    """A key in a header or a query parameter."""

    name: str
    key: Secret = field(repr=False)
    place: Literal["header", "query"] = "header"

    def sign(self, url: httpx.URL, headers: httpx.Headers, ask: Ask) -> httpx.URL:
        """Where it was declared to stand."""
        if self.place == "query":
            return url.copy_set_param(self.name, self.key())
        headers[self.name] = _plain(self.key())
        return url

    def hide(self, url: httpx.URL) -> httpx.URL:
        """Without the parameter: a next page's address may bring it back."""
        if self.place == "query" and self.name in url.params:
            return url.copy_remove_param(self.name)
        return url


@dataclass
class ClientCredentials(Credentials):
    """OAuth 2: a client's own name and secret against a token, renewed before it expires and when refused."""

    token_url: str
    client_id: Secret = field(repr=False)
    client_secret: Secret = field(repr=False)
    scope: str | None = None
    place: Literal["header", "body"] = "header"
    """Where client id and secret stand when asking for a token."""
    _token: str | None = field(default=None, init=False, repr=False, compare=False)
    _until: float = field(default=0.0, init=False, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def sign(self, url: httpx.URL, headers: httpx.Headers, ask: Ask) -> httpx.URL:
        """Into the header Authorization, with a token that is good for a while yet."""
        with self._lock:
            if self._token is None or time.monotonic() >= self._until:
                self._fetch(ask)
            headers["Authorization"] = f"Bearer {self._token}"
        return url

    def renew(self, headers: httpx.Headers) -> bool:
        """Forget the token, if it is the one that was refused."""
        with self._lock:
            if headers.get("Authorization") == f"Bearer {self._token}":
                self._token = None
        return True

    def _fetch(self, ask: Ask) -> None:
        form = {"grant_type": "client_credentials"} | ({"scope": self.scope} if self.scope else {})
        headers = {"Accept": "application/json"}
        if self.place == "header":
            headers["Authorization"] = _basic(self.client_id(), self.client_secret())
        else:
            form |= {"client_id": self.client_id(), "client_secret": self.client_secret()}
        answer = ask(httpx.Request("POST", self.token_url, data=form, headers=headers))
        token, lasts = answer.get("access_token"), answer.get("expires_in")
        if not isinstance(token, str) or not token:
            raise SourceRefusedError(
                "the token server's answer has no `access_token`; check `auth.token_url`"
            )
        lasts_s = (
            float(lasts) if isinstance(lasts, int | float | str) and _is_number(lasts) else _TOKEN_LASTS_S
        )
        self._token = _plain(token)
        self._until = time.monotonic() + max(lasts_s - _RENEW_BEFORE_S, lasts_s / 2)


def _basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def _plain(secret: str) -> str:
    """Return it if a header can carry it; the library's own message would show it."""
    if not secret.isascii() or not secret.isprintable():
        raise SourceRefusedError(
            "a secret holds a line end or another character that no header can carry; set its variable anew"
        )
    return secret


def _is_number(value: float | str) -> bool:
    try:
        return float(value) >= 0
    except ValueError:
        return False
