"""One answer of an API: a JSON document with records in it, and what it says of the next page. Pure."""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any

import httpx

from datops_assets.errors import ContainerDamagedError
from datops_assets.ingestion.json_text import not_json

_NAMES_SHOWN = 12
_BLANK = re.compile(r"[ \t\r\n]*+")
_DECODER = json.JSONDecoder()
_PATIENT_DECODER = json.JSONDecoder(parse_int=str)


class CutOffError(ContainerDamagedError):
    """An answer is no JSON: it may have been cut off on its way, so asking again may help.

    Next: nothing at first, it is asked for again by itself; then open the address of the message in a browser.
    """


@dataclass(frozen=True)
class Page:
    """An answer that is JSON, and the records in it."""

    document: Any
    records: list[Any]
    """The records with Python's values, to look at; what is loaded is `raws`."""
    raws: list[bytes]
    """Each record's own text in one line, otherwise as delivered."""
    size_bytes: int
    headers: httpx.Headers
    url: httpx.URL
    """Where it came from in the end, without secrets."""

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
    text = _as_text(body, headers)
    document, raws = _parsed(text, [] if records is None else records.split("."), single=single)
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
    return Page(document, found, raws, len(body), headers, url)


_MISSING = object()


def value_at(document: Any, path: str, missing: Any = None) -> Any:
    """Return what a dotted path leads to; `missing` where it leads nowhere."""
    for name in path.split("."):
        if not isinstance(document, dict) or name not in document:
            return missing
        document = document[name]
    return document


def _as_text(body: bytes, headers: httpx.Headers) -> str:
    charset = httpx.Response(200, headers=headers).charset_encoding
    encoding = json.detect_encoding(body)
    if encoding.startswith("utf-8") and charset is not None:
        encoding = charset
    try:
        name = codecs.lookup(encoding).name
        if name in ("utf-8", "utf-8-sig", "ascii"):
            # Bytes that are not UTF-8 inside a record are that record's damage, which the loader sees.
            return body.decode("utf-8-sig", "surrogateescape")
        return body.decode(name)
    except (LookupError, UnicodeError):
        raise ContainerDamagedError("the answer is not written in the encoding that it names") from None


def _parsed(text: str, path: list[str], *, single: bool) -> tuple[Any, list[bytes]]:
    """Return the document, and the texts of the records at a path in it."""
    try:
        try:
            return _Walk(text, _DECODER, single=single).document(path)
        except json.JSONDecodeError:
            raise
        except ValueError:  # a number of more digits than Python converts
            return _Walk(text, _PATIENT_DECODER, single=single).document(path)
    except json.JSONDecodeError as error:
        raise CutOffError(
            f"the answer is {not_json(error)} (line {error.lineno}, column {error.colno}); it may be cut off"
        ) from None
    except RecursionError:
        raise ContainerDamagedError("the answer holds values nested too deeply") from None


class _Walk:
    """One pass over a JSON text: Python's scanner takes each record, and says where it ended."""

    def __init__(self, text: str, decoder: json.JSONDecoder, *, single: bool) -> None:
        self._text = text
        self._decoder = decoder
        self._single = single

    def document(self, path: list[str]) -> tuple[Any, list[bytes]]:
        """Return the value of the whole text, and the texts of the records at a path in it."""
        value, end, raws = self._value(self._blank(0), path)
        if self._blank(end) != len(self._text):
            raise json.JSONDecodeError("Extra data", self._text, end)
        return value, raws

    def _value(self, at: int, path: list[str]) -> tuple[Any, int, list[bytes]]:
        opening = self._text[at : at + 1]
        if path and opening == "{":
            return self._object(at, path)
        if not path and opening == "[" and not self._single:
            return self._array(at)
        value, end = self._decoder.raw_decode(self._text, at)
        return value, end, [self._line(at, end)] if not path and self._single else []

    def _object(self, at: int, path: list[str]) -> tuple[dict[str, Any], int, list[bytes]]:
        members: dict[str, Any] = {}
        raws: list[bytes] = []
        at = self._blank(at + 1)
        if self._text.startswith("}", at):
            return members, at + 1, raws
        while True:
            if not self._text.startswith('"', at):
                raise json.JSONDecodeError(
                    "Expecting property name enclosed in double quotes", self._text, at
                )
            name, at = scanstring(self._text, at + 1)
            at = self._blank(at)
            if not self._text.startswith(":", at):
                raise json.JSONDecodeError("Expecting ':' delimiter", self._text, at)
            at = self._blank(at + 1)
            if name == path[0]:
                members[name], at, raws = self._value(at, path[1:])  # of a name that is there twice, the last
            else:
                members[name], at = self._decoder.raw_decode(self._text, at)
            at, is_over = self._separator(at, "}")
            if is_over:
                return members, at, raws

    def _array(self, at: int) -> tuple[list[Any], int, list[bytes]]:
        values: list[Any] = []
        raws: list[bytes] = []
        at = self._blank(at + 1)
        if self._text.startswith("]", at):
            return values, at + 1, raws
        decode, line = self._decoder.raw_decode, self._line
        while True:
            value, end = decode(self._text, at)
            values.append(value)
            raws.append(line(at, end))
            at, is_over = self._separator(end, "]")
            if is_over:
                return values, at, raws

    def _separator(self, at: int, closing: str) -> tuple[int, bool]:
        at = self._blank(at)
        found = self._text[at : at + 1]
        if found == closing:
            return at + 1, True
        if found != ",":
            raise json.JSONDecodeError("Expecting ',' delimiter", self._text, at)
        return self._blank(at + 1), False

    def _blank(self, at: int) -> int:
        match = _BLANK.match(self._text, at)
        assert match is not None  # the pattern matches nothing, too
        return match.end()

    def _line(self, at: int, end: int) -> bytes:
        """Return a value's text; a line end can only stand between its parts, where a blank is as good."""
        raw = self._text[at:end]
        if "\n" in raw or "\r" in raw:
            raw = raw.replace("\r", " ").replace("\n", " ")
        return raw.encode("utf-8", "surrogateescape")


def _shape(value: Any) -> str:
    """Say what kind of value it is; names of members are shown, values never."""
    if isinstance(value, dict):
        names = list(value)[:_NAMES_SHOWN]
        return f"an object with {', '.join(map(repr, names))}" if names else "an object without members"
    kinds = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
