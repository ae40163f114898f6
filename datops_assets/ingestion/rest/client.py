"""One request to an API and its whole answer: signed, paced, tried again, bounded in size and time.

httpx makes the requests' texts and httpcore carries them. httpx's own client stands aside: it logs
addresses with their parameters, follows redirects with our key headers on, and unpacks without bound.
Trying again is ours: how long to wait is the server's word (Retry-After) before it is a formula.

No message holds a header, a parameter, or anything of a body.
"""

from __future__ import annotations

import json
import random
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpcore
import httpx

from datops_assets.errors import ContainerDamagedError, SourceRefusedError, SourceUnreachableError
from datops_assets.ingestion.rest.address import CheckedBackend
from datops_assets.ingestion.rest.credentials import ClientCredentials
from datops_assets.ingestion.rest.page import CutOffError
from datops_assets.ingestion.rest.tables import Api

T = TypeVar("T")
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_MOVED = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5
_LONGEST_BACKOFF_S = 60.0
_WHOLE_ANSWER = 10
"""A whole answer may take so many times the longest silence: a server that drips is given up on."""
_PIECE_BYTES = 1 << 20
_WHY = {
    400: "it does not understand the request; check `path`, `params` and `pagination`",
    401: "it does not know us; check `auth:` and the variables it names",
    403: "we may not read this; check what the credentials of `auth:` are allowed",
    404: "there is no such address; check `url` and `path`",
    405: "the address takes another method; check `method`",
    410: "the address is gone; check `url` and `path`",
}


@dataclass(frozen=True)
class Answer:
    """What came back: unpacked, and not looked into."""

    body: bytes
    headers: httpx.Headers
    url: httpx.URL
    """The address that answered in the end, as we knew it before signing."""


@dataclass(frozen=True)
class Request:
    """What is asked, before anybody has signed it."""

    method: str
    url: httpx.URL
    label: str
    """What messages call it: no parameter, no secret."""
    params: tuple[tuple[str, str], ...] = ()
    body: dict[str, Any] | None = None

    def at(self) -> httpx.URL:
        """Return the whole address."""
        return self.url.copy_merge_params(list(self.params)) if self.params else self.url


class _AgainError(Exception):
    """The same request may succeed later."""

    def __init__(self, what: str, wait_s: float | None = None, *, damaged: bool = False) -> None:
        self.what = what
        self.wait_s = wait_s
        self.damaged = damaged
        super().__init__(what)


class Client:
    """Connections to one API; used by several threads at once."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._base = httpx.URL(api.url)
        self._lock = threading.Lock()
        self._backend = CheckedBackend(self._private_hosts())
        self._pool: httpcore.ConnectionPool | None = None
        self._next_slot = 0.0

    @property
    def base(self) -> httpx.URL:
        """The API's own address."""
        return self._base

    def ask(self, request: Request, read: Callable[[Answer], T]) -> T:
        """Send a request until its answer is good, and return what `read` makes of it.

        read       raises CutOffError where the answer may be cut off; it is asked for again
        raises     SourceUnreachableError: not within the tries and the time allowed
                   SourceRefusedError: the API, or a rule of ours, says no
                   ContainerDamagedError: as `read` did
        """
        began = time.monotonic()
        attempt = 1
        while True:
            try:
                return self._try(request, read)
            except _AgainError as again:
                self._wait(request, again, attempt, began)
                attempt += 1

    def connect(self, label: str) -> None:
        """Make a connection and no request.

        raises     SourceUnreachableError, SourceRefusedError
        """
        port = _origin(self._base)[2]
        try:
            with _spoken(self._api.timeout_s):
                self._backend.connect_tcp(self._base.host, port, self._api.timeout_s).close()
        except _AgainError as again:
            raise SourceUnreachableError(f"{label}: {again.what}; is it up, and `url` right?") from None
        except SourceRefusedError as error:
            raise SourceRefusedError(f"{label}: {error}") from None

    def shown(self, address: str) -> str:
        """Return an address that the API gave without what is secret in it, so that it can be kept."""
        url = httpx.URL(address).copy_with(userinfo=b"")
        credentials = self._api.credentials
        return str(credentials.hide(url) if credentials else url)

    def close(self) -> None:
        """Close all connections. May be called again."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def _try(self, request: Request, read: Callable[[Answer], T]) -> T:
        try:
            answer = self._answer(request)
            return read(answer)
        except CutOffError as error:
            raise _AgainError(str(error), damaged=True) from None
        except (SourceRefusedError, ContainerDamagedError) as error:
            raise type(error)(f"{request.label}: {error}") from None

    def _wait(self, request: Request, again: _AgainError, attempt: int, began: float) -> None:
        api = self._api
        wait_s = again.wait_s
        if wait_s is None:
            doubled = min(api.backoff_s * 2 ** (attempt - 1), _LONGEST_BACKOFF_S)
            wait_s = doubled * random.uniform(0.5, 1)  # noqa: S311 spreads clients out, keeps no secret
        if attempt < api.tries and time.monotonic() + wait_s - began <= api.wait_s:
            time.sleep(wait_s)
            return
        tried = f" ({attempt} tries)" if attempt > 1 else ""
        if again.damaged:
            raise ContainerDamagedError(f"{request.label}: {again.what}{tried}")
        asks = "" if again.wait_s is None else f" and asks for a wait of {_duration(again.wait_s)}"
        raise SourceUnreachableError(
            f"{request.label}: {again.what}{asks}{tried}; nothing of it was kept, the next run asks again"
        )

    def _answer(self, request: Request) -> Answer:
        """Send it, follow where it leads, and read the answer."""
        url, method, renewed = request.at(), request.method, False
        for _ in range(_MOST_REDIRECTS + 1):
            self._pace()
            exchange = self._exchange(request, url, method)
            with exchange:
                status = exchange.status
                if status in _MOVED and "location" in exchange.headers:
                    url, method = self._moved(url, method, exchange)
                    continue
                credentials = self._api.credentials
                if status == 401 and exchange.is_signed and credentials is not None and not renewed:
                    renewed = True
                    if credentials.renew(exchange.sent):
                        exchange.close()
                        return self._second_answer(request, url, method)
                return self._read(exchange, url)
        raise SourceRefusedError(f"it leads from one address to the next, more than {_MOST_REDIRECTS} times")

    def _second_answer(self, request: Request, url: httpx.URL, method: str) -> Answer:
        with self._exchange(request, url, method) as exchange:
            return self._read(exchange, url)

    def _read(self, exchange: _Exchange, url: httpx.URL) -> Answer:
        status = exchange.status
        if status in _AGAIN:
            raise _AgainError(f"it answers with status {status}", _retry_after(exchange.headers))
        if not 200 <= status < 300:
            why = _WHY.get(status, "it refuses the request; check `path`, `params` and `method`")
            raise SourceRefusedError(f"status {status}: {why}")
        body = exchange.body(self._api.max_response_bytes)
        if "html" in exchange.headers.get("content-type", "") or body.lstrip()[:1] == b"<":
            raise SourceRefusedError(
                "it answers with a page for people (HTML or XML) in place of JSON, a login or a proxy's notice perhaps;"
                " open the address in a browser, check `url`, `path` and `auth`"
            )
        if not body.strip():
            if status != 204:
                raise _AgainError("it answers with nothing", damaged=True)
            body = b"null"
        return Answer(body, exchange.headers, url)

    def _moved(self, url: httpx.URL, method: str, exchange: _Exchange) -> tuple[httpx.URL, str]:
        try:
            to = url.join(exchange.headers["location"])
        except httpx.InvalidURL:
            raise SourceRefusedError("it leads to an address that is none") from None
        if to.scheme not in ("http", "https") or (url.scheme == "https" and to.scheme == "http"):
            raise SourceRefusedError(
                f"it leads from {url.scheme} to {to.scheme}, where others could read along; check `url`"
            )
        asks_anew = exchange.status == 303 or (exchange.status in (301, 302) and method == "POST")
        return to, "GET" if asks_anew else method

    def _exchange(self, request: Request, url: httpx.URL, method: str) -> _Exchange:
        """Send one request; credentials and headers of the document go to the API's own origin only."""
        api, own = self._api, _origin(url) == _origin(self._base)
        headers = httpx.Headers(
            {"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "datops"}
        )
        if own:
            headers.update(api.headers)
            for name, secret in api.secret_headers.items():
                headers[name] = _header_value(secret())
            if api.credentials is not None:
                url = api.credentials.sign(url, headers, self._token_answer)
        body = request.body if own and method == request.method else None
        return self._send(httpx.Request(method, url, headers=headers, json=body), is_signed=own)

    def _token_answer(self, request: httpx.Request) -> dict[str, Any]:
        """Ask a token server; part of a try of the request that the token is for."""
        request.headers["Accept-Encoding"] = "gzip"
        with self._send(request, is_signed=True) as exchange:
            if exchange.status in _AGAIN:
                raise _AgainError(
                    f"the token server answers with status {exchange.status}", _retry_after(exchange.headers)
                )
            if exchange.status != 200:
                raise SourceRefusedError(
                    f"the token server answers with status {exchange.status}; check `auth.token_url` and the variables"
                    " that `auth:` names"
                )
            try:
                answer = json.loads(exchange.body(_PIECE_BYTES))
            except (ValueError, RecursionError):
                answer = None
        if not isinstance(answer, dict):
            raise SourceRefusedError("the token server's answer is no JSON object; check `auth.token_url`")
        return answer

    def _send(self, request: httpx.Request, *, is_signed: bool) -> _Exchange:
        silence = self._api.timeout_s
        timeouts = {"connect": silence, "read": silence, "write": silence, "pool": silence}
        deadline = time.monotonic() + _WHOLE_ANSWER * silence
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        raw = httpcore.Request(
            request.method,
            url,
            headers=request.headers.raw,
            content=request.read(),
            extensions={"timeout": timeouts},
        )
        with _spoken(silence):
            response = self._connections().handle_request(raw)
        return _Exchange(response, request.headers, deadline, silence, is_signed=is_signed)

    def _connections(self) -> httpcore.ConnectionPool:
        with self._lock:
            if self._pool is None:
                self._pool = httpcore.ConnectionPool(
                    ssl_context=self._trust(),
                    max_connections=self._api.concurrency + 2,
                    keepalive_expiry=15,
                    network_backend=self._backend,
                )
            return self._pool

    def _trust(self) -> ssl.SSLContext:
        context = httpx.create_ssl_context(trust_env=False)
        if self._api.ca_file is not None:
            try:
                context.load_verify_locations(cafile=self._api.ca_file)
            except (OSError, ssl.SSLError):
                raise SourceRefusedError(
                    "the file of `ca_file` cannot be read as certificates (PEM); check its path"
                ) from None
        return context

    def _private_hosts(self) -> frozenset[str]:
        if not self._api.allow_private:
            return frozenset()
        credentials = self._api.credentials
        token = httpx.URL(credentials.token_url).host if isinstance(credentials, ClientCredentials) else ""
        return frozenset({self._base.host, token} - {""})

    def _pace(self) -> None:
        """Wait for our turn where requests per second are limited; turns are given out evenly."""
        if self._api.requests_per_s is None:
            return
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next_slot)
            self._next_slot = turn + 1 / self._api.requests_per_s
        time.sleep(turn - now)


class _Exchange:
    """A request that was answered; the body is still on its way. A context manager."""

    def __init__(
        self,
        response: httpcore.Response,
        sent: httpx.Headers,
        deadline: float,
        silence_s: float,
        *,
        is_signed: bool,
    ) -> None:
        self._response = response
        self._deadline = deadline
        self._silence_s = silence_s
        self.status = response.status
        self.headers = httpx.Headers(response.headers)
        self.sent = sent
        self.is_signed = is_signed

    def __enter__(self) -> _Exchange:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._response.close()

    def body(self, limit: int) -> bytes:
        """Read the body to its end, unpacked piece by piece so that a small one cannot become huge."""
        parts, size = [], 0
        for part in self._unpacked():
            size += len(part)
            if size > limit:
                raise SourceRefusedError(
                    f"the answer is longer than {limit >> 20} MiB unpacked; ask for smaller pages"
                    " (`pagination.size`), or raise `max_response_mb`"
                )
            parts.append(part)
        return b"".join(parts)

    def _unpacked(self) -> Iterator[bytes]:
        encoding = self.headers.get("content-encoding", "identity").strip().lower()
        if encoding in ("", "identity"):
            yield from self._raw()
            return
        if encoding not in ("gzip", "x-gzip", "deflate"):
            raise SourceRefusedError(f"the answer is packed as {encoding[:20]!r}, which was not asked for")
        unpacker = zlib.decompressobj(wbits=47)
        try:
            for packed in self._raw():
                yield unpacker.decompress(packed, _PIECE_BYTES)
                while unpacker.unconsumed_tail:
                    yield unpacker.decompress(unpacker.unconsumed_tail, _PIECE_BYTES)
            yield unpacker.flush()
        except zlib.error:
            raise _AgainError("the answer's compression is broken", damaged=True) from None
        if not unpacker.eof:
            raise _AgainError("the answer's compression is cut off", damaged=True)

    def _raw(self) -> Iterator[bytes]:
        with _spoken(self._silence_s):
            for part in self._response.iter_stream():
                if time.monotonic() > self._deadline:
                    raise _AgainError(f"the answer takes longer than {_WHOLE_ANSWER * self._silence_s:g} s")
                yield part


class _spoken:  # noqa: N801 used like a function
    """Turns the transport's errors into sentences without an address's parameters."""

    def __init__(self, silence_s: float) -> None:
        self._silence_s = silence_s

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if error is None:
            return
        untrusted = _cause(error, ssl.SSLCertVerificationError)
        if untrusted is not None:
            raise SourceRefusedError(
                f"its certificate is not trusted ({untrusted.verify_message}); for an authority of your own"
                " write `ca_file:` below `source:`"
            ) from None
        if isinstance(error, httpcore.ConnectError):
            what = "it speaks no TLS" if _cause(error, ssl.SSLError) else "no connection to it"
            raise _AgainError(what) from None
        if isinstance(error, httpcore.TimeoutException):
            raise _AgainError(f"it is silent for {self._silence_s:g} s") from None
        if isinstance(error, httpcore.NetworkError | httpcore.ProtocolError):
            raise _AgainError("the connection was cut, or the answer is not as long as it says") from None
        if isinstance(error, httpcore.UnsupportedProtocol):
            raise SourceRefusedError("the address is neither http nor https; check `url`") from None


ErrorT = TypeVar("ErrorT", bound=BaseException)


def _cause(error: BaseException | None, kind: type[ErrorT]) -> ErrorT | None:
    while error is not None:
        if isinstance(error, kind):
            return error
        error = error.__cause__ or error.__context__
    return None


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or {"https": 443, "http": 80}.get(url.scheme, 0)


def _header_value(secret: str) -> str:
    if not secret.isascii() or not secret.isprintable():
        raise SourceRefusedError("a variable of `headers_env` holds what no header can carry; set it anew")
    return secret


def _retry_after(headers: httpx.Headers) -> float | None:
    """Return the seconds that the server asks to wait; None where it says nothing that can be understood."""
    said = headers.get("retry-after", "").strip()
    if said.isascii() and said.isdigit():
        return float(said[:12])
    try:
        when = parsedate_to_datetime(said)
    except (TypeError, ValueError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


def _duration(seconds: float) -> str:
    days = seconds / 86400
    return f"{days:,.0f} days" if days >= 2 else f"{seconds:,.0f} s"
