"""One answer of an API: a JSON document with records in it, and what it says of the next page. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from datops_assets.errors import ContainerDamagedError
from datops_assets.ingestion.json_text import ArrayElements, not_json, object_members

_NAMES_SHOWN = 12


class CutOffError(ContainerDamagedError):
    """An answer is no JSON: it may have been cut off on its way, so asking again may help."""


@dataclass(frozen=True)
class Page:
    """An answer that is JSON, and the records in it."""

    body: bytes
    """UTF-8, as delivered."""
    document: Any
    records: list[Any]
    """The records with Python's values, to look at; what is loaded is `raw_records`."""
    headers: httpx.Headers
    url: httpx.URL
    """Where it came from in the end, without secrets."""
    path: str | None
    is_single: bool

    def raw_records(self) -> Iterator[bytes]:
        """Yield each record's own text in one line, otherwise as delivered.

        A line end can only stand between the parts of valid JSON, where a blank is as good.
        """
        if not self.records:
            return
        if self.is_single:
            texts: Iterator[bytes] = iter([_raw_at(self.body, self.path)])
        else:
            texts = (element.raw for element in ArrayElements(iter([self.body]), self.path, "the answer"))
        for text in texts:
            yield text.replace(b"\r", b" ").replace(b"\n", b" ") if b"\n" in text or b"\r" in text else text

    def link_next(self) -> str | None:
        """Return the address with `rel="next"` of the header Link."""
        return httpx.Response(200, headers=self.headers).links.get("next", {}).get("url")

    def absolute(self, url: str) -> str:
        """Return an address that the page gave, whole."""
        try:
            return str(self.url.join(url))
        except httpx.InvalidURL:
            raise ContainerDamagedError(
                "the address of the next page is none; correct `pagination`"
            ) from None


def read_page(
    body: bytes, headers: httpx.Headers, url: httpx.URL, *, records: str | None, single: bool
) -> Page:
    """Read an answer.

    body       unpacked
    records    dotted path to the array; None: the answer is the array
    single     what is there is one record
    raises     CutOffError: it is no JSON. ContainerDamagedError: the records are not there.
               Neither holds a value of it
    """
    body = _as_utf8(body, headers)
    document = _parsed(body)
    found = document if records is None else value_at(document, records, missing=_MISSING)
    if found is _MISSING:
        raise ContainerDamagedError(
            f"there is nothing at {records!r} in the answer, which is {_shape(document)}; correct `records:`"
        )
    if found is None:
        found = []
    elif single:
        if not isinstance(found, dict):
            raise ContainerDamagedError(f"one record was expected (`single: true`), found {_shape(found)}")
        found = [found]
    elif not isinstance(found, list):
        raise ContainerDamagedError(
            f"a list of records was expected{f' at {records!r}' if records else ''}, found {_shape(found)};"
            " write `records:` with the path to the list, or `single: true` where it is one record"
        )
    return Page(body, document, found, headers, url, records, single)


_MISSING = object()


def value_at(document: Any, path: str, missing: Any = None) -> Any:
    """Return what a dotted path leads to; `missing` where it leads nowhere."""
    for name in path.split("."):
        if not isinstance(document, dict) or name not in document:
            return missing
        document = document[name]
    return document


def _as_utf8(body: bytes, headers: httpx.Headers) -> bytes:
    charset = httpx.Response(200, headers=headers).charset_encoding
    encoding = json.detect_encoding(body)
    if encoding.startswith("utf-8") and charset is not None:
        encoding = charset
    if encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig", "us-ascii", "ascii"):
        return body
    try:
        return body.decode(encoding).encode()
    except (LookupError, UnicodeError):
        raise ContainerDamagedError("the answer is not written in the encoding that it names") from None


def _parsed(body: bytes) -> Any:
    # Bytes that are not UTF-8 inside a record are that record's damage, which the loader sees.
    text = body.decode("utf-8-sig", "surrogateescape")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise CutOffError(
            f"the answer is {not_json(error)} (line {error.lineno}, column {error.colno}); it may be cut off"
        ) from None
    except ValueError:  # a number of more digits than Python converts
        return json.loads(text, parse_int=str)
    except RecursionError:
        raise ContainerDamagedError("the answer holds values nested too deeply") from None


def _raw_at(body: bytes, path: str | None) -> bytes:
    text = body.decode("utf-8-sig", "surrogateescape")
    for name in [] if path is None else path.split("."):
        text = dict(object_members(text))[name]
    return text.strip().encode("utf-8", "surrogateescape")


def _shape(value: Any) -> str:
    """Say what kind of value it is; names of members are shown, values never."""
    if isinstance(value, dict):
        names = list(value)[:_NAMES_SHOWN]
        return f"an object with {', '.join(map(repr, names))}" if names else "an object without members"
    kinds = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
