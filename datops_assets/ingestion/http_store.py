"""Files on a web server: by name, or found by the links of an index page.

A file is fetched by one request, whose answer says which version it is. What the answer is packed
with for the way (Content-Encoding) is left on, for it is told by its first bytes like any packing.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from typing import IO, Any, cast
from urllib.parse import quote, unquote, urljoin

import httpx

from datops_assets.errors import DatopsError, FileChangedError, SourceRefusedError
from datops_assets.ingestion.packed import CHUNK_BYTES
from datops_assets.ingestion.remote import DistantStore, Entry
from datops_assets.ingestion.source import Unit
from datops_assets.ingestion.store import changed
from datops_assets.ingestion.store_errors import explain, is_missing, without_secrets

_TIMEOUT_S = 60.0
_CONNECT_S = 10.0
_LARGEST_INDEX_BYTES = 32 << 20
_NO_HEAD = (405, 501)


class HttpStore(DistantStore):
    """A web server, read only."""

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(url)
        self._options = dict(options or {})
        self._client: httpx.Client | None = None

    def entries(self, folder: str) -> Sequence[Entry]:
        """Follow the links of an index page; those that lead elsewhere are none."""
        base = f"{self.url}/{quote(folder)}"
        try:
            page = self._index(base)
        except httpx.HTTPError as error:
            if folder and is_missing(error):
                return []
            raise self._explained(error) from None
        found = []
        for link in _links(page):
            whole = urljoin(base, link).partition("#")[0]
            below = whole.removeprefix(base)
            name = unquote(below.rstrip("/"))
            if whole.startswith(base) and name and "/" not in name and "?" not in below:
                entry = Entry(whole, True, 0) if below.endswith("/") else self.entry(f"{folder}{name}")
                found += [entry] if entry else []
        return list(dict.fromkeys(found))

    def entry(self, path: str) -> Entry | None:
        """Ask for a file's size and version."""
        url = f"{self.url}/{quote(path)}"
        try:
            answer = self._opened().head(url)
            if answer.status_code in _NO_HEAD:
                with self._opened().stream("GET", url) as answer:
                    pass  # its headers are enough
            answer.raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            if is_missing(error):
                return None
            raise self._explained(error) from None
        return _entry(url, answer.headers)

    def stream(self, unit: Unit) -> IO[bytes]:
        """Fetch a file by one request.

        raises     FileChangedError: the answer is of another version than the listing's
        """
        client = self._opened()
        try:
            answer = client.send(client.build_request("GET", unit.location), stream=True)
            answer.raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            if is_missing(error):
                raise FileChangedError(
                    f"{unit.path} vanished before it was read; nothing of it was kept"
                ) from None
            raise self._explained(error, unit) from None
        if _entry(unit.location, answer.headers).fingerprint != unit.fingerprint:
            answer.close()
            raise changed(unit)
        return cast(IO[bytes], _Body(answer, self, unit))

    def close(self) -> None:
        """Drop the copy, close the connections."""
        super().close()
        if self._client is not None:
            self._client.close()
            self._client = None

    def _explained(self, error: BaseException, unit: Unit | None = None) -> DatopsError:
        return explain(error, self.url, unit)

    def _index(self, url: str) -> str:
        with self._opened().stream("GET", url) as answer:
            answer.raise_for_status()
            if "html" not in answer.headers.get("content-type", "html"):
                raise SourceRefusedError(
                    f"{without_secrets(url)} is no index page; name the files in `files:` without * and ?"
                )
            page = b""
            for part in answer.iter_bytes(CHUNK_BYTES):
                page += part
                if len(page) > _LARGEST_INDEX_BYTES:
                    raise SourceRefusedError(f"{without_secrets(url)}: its index page is larger than 32 MiB")
            return page.decode(answer.charset_encoding or "utf-8", "replace")

    def _opened(self) -> httpx.Client:
        if self._client is None:
            given = dict(self._options)
            headers = {"Accept-Encoding": "identity", **given.pop("headers", {})}
            if (token := given.pop("token", None)) is not None:
                headers["Authorization"] = f"Bearer {token}"
            user, password = given.pop("user", None), given.pop("password", None)
            verify = given.pop("verify", True)
            if given:
                raise SourceRefusedError(
                    f"{without_secrets(self.url)}: `options:` has {', '.join(sorted(given))}, expected of:"
                    " user, password_env, token_env, headers, verify"
                )
            auth = httpx.BasicAuth(user or "", password or "") if user or password else None
            timeout = httpx.Timeout(_TIMEOUT_S, connect=_CONNECT_S)
            self._client = httpx.Client(
                headers=headers, auth=auth, timeout=timeout, verify=verify, follow_redirects=True
            )
        return self._client


class _Body(io.RawIOBase):
    """The body of an answer as a file that is read front to back."""

    def __init__(self, answer: httpx.Response, store: HttpStore, unit: Unit) -> None:
        self._answer = answer
        self._parts: Iterator[bytes] = answer.iter_raw(CHUNK_BYTES)
        self._store = store
        self._unit = unit
        self._ahead = b""

    def readable(self) -> bool:
        """It is for nothing else."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, fewer than `size` only at the end."""
        while size < 0 or len(self._ahead) < size:
            try:
                part = next(self._parts, None)
            except httpx.HTTPError as error:
                raise explain(error, self._store.url, self._unit) from None
            if part is None:
                break
            self._ahead += part
        end = len(self._ahead) if size < 0 else size
        taken, self._ahead = self._ahead[:end], self._ahead[end:]
        return taken

    def close(self) -> None:
        """End the answer."""
        self._answer.close()
        super().close()


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]


def _links(page: str) -> list[str]:
    parser = _Links()
    parser.feed(page)
    return parser.found


def _entry(url: str, headers: Mapping[str, str]) -> Entry:
    changed_at = None
    if "last-modified" in headers:
        try:
            changed_at = parsedate_to_datetime(headers["last-modified"]).timestamp()
        except ValueError:
            changed_at = None
    return Entry(
        name=url,
        is_folder=False,
        size_bytes=int(headers.get("content-length", 0)),
        etag=headers.get("etag"),
        changed_at=changed_at,
    )
