"""JSON as text: lines, the elements of an array, the members of an object; values stay raw. Pure."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from json.decoder import scanstring  # type: ignore[attr-defined]

from datops_assets.errors import ContainerDamagedError
from datops_assets.ingestion.line_buffer import MAX_RECORD_BYTES

MAX_DEPTH = 5000
"""PostgreSQL's stack ends somewhere past 10,000 levels; an error there would stop the whole file."""
_WHITESPACE = b" \t\r\n"
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_SCALAR = re.compile(rb'[^\s,\]}"\[{]++')
_TO_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_BRACKET_OR_STRING = re.compile(rb'[\[{]|[\]}]|"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_BLANK = re.compile(r"[ \t\r\n]*+")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


# Numbers are not converted: only where a value ends matters, and int() refuses 5,000 digits.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_no_constant)


class NotAnObjectError(ValueError):
    """Valid JSON that is no object, so it has no columns."""


_SAID_BY_PYTHON = {
    "Unterminated string starting at": "a string is not closed",
    "Expecting value": "a value was expected",
    "Extra data": "text after the value",
    "Invalid control character at": "a control character inside a string",
    "Invalid \\escape": "a backslash that escapes nothing",
    "Invalid \\uXXXX escape": "a \\u without four hexadecimal digits",
    "Expecting property name enclosed in double quotes": "a name in quotes was expected",
    "Expecting ':' delimiter": "a colon was expected",
    "Expecting ',' delimiter": "a comma was expected",
    "Illegal trailing comma before end of object": "a comma before the end of the object",
    "Illegal trailing comma before end of array": "a comma before the end of the array",
}


def not_json(error: ValueError) -> str:
    """Return the reason a damaged record carries; without the place, so that equal mistakes count together."""
    said = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    known = next((ours for theirs, ours in _SAID_BY_PYTHON.items() if said.startswith(theirs)), said)
    return f"not JSON: {known}"


def object_members(text: str) -> list[tuple[str, str]]:
    """Return the members of a JSON object as (name, raw value), repeated names included.

    raises     NotAnObjectError: it is JSON, but of another kind
               ValueError: it is no JSON; json.JSONDecodeError where the place is known
    """
    at = _blank_end(text, 0)
    if not text.startswith("{", at):
        _DECODER.decode(text)
        raise NotAnObjectError("JSON, but not an object")
    members = []
    at = _blank_end(text, at + 1)
    if text.startswith("}", at):
        at += 1
    else:
        more = True
        while more:
            member, at, more = _member(text, at)
            members.append(member)
    if _blank_end(text, at) != len(text):
        raise json.JSONDecodeError("text after the object", text, at)
    return members


def depth_of(raw: bytes) -> int:
    """Return how deep arrays and objects are nested."""
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return 0  # not worth a closer look
    depth = deepest = 0
    for match in _BRACKET_OR_STRING.finditer(raw):
        token = match.group()
        if token in (b"[", b"{"):
            depth += 1
            deepest = max(deepest, depth)
        elif token in (b"]", b"}"):
            depth -= 1
    return deepest


def _member(text: str, at: int) -> tuple[tuple[str, str], int, bool]:
    if not text.startswith('"', at):
        raise json.JSONDecodeError("a name in quotes was expected", text, at)
    name, at = scanstring(text, at + 1)
    at = _blank_end(text, at)
    if not text.startswith(":", at):
        raise json.JSONDecodeError("a colon was expected", text, at)
    start = _blank_end(text, at + 1)
    _, end = _DECODER.raw_decode(text, start)
    at = _blank_end(text, end)
    if not text.startswith((",", "}"), at):
        raise json.JSONDecodeError("a comma or the end of the object was expected", text, at)
    more = text[at] == ","
    return (name, text[start:end]), _blank_end(text, at + 1) if more else at + 1, more


def _blank_end(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    assert match is not None  # the pattern matches nothing, too
    return match.end()


@dataclass(frozen=True)
class Element:
    """One element of an array."""

    raw: bytes
    line: int
    """1-based line where it begins."""
    column: int
    """1-based column (bytes) where it begins."""
    position: int
    """Byte offset where it begins."""


class ArrayElements:
    """Iterate over the elements of the array in a JSON document, one in memory at a time.

    records    path to the array, names joined by dots; None: the document is the array
    raises     ContainerDamagedError: brackets do not match, the array is not there, text follows;
               named by line and column. What is inside an element the caller checks
    """

    def __init__(self, chunks: Iterator[bytes], records: str | None, path: str) -> None:
        self._chunks = chunks
        self._records = [] if records is None else records.split(".")
        self._path = path
        self._buffer = b""
        self._at = 0
        self._base = 0
        self._line = 1
        self._column = 1

    def __iter__(self) -> Iterator[Element]:
        """Yield the elements in order."""
        self._skip_bom()
        for name in self._records:
            self._enter(name)
        if self._peek() != b"[":
            hint = (
                "; state `records:` with the path to the array"
                if self._peek() == b"{" and not self._records
                else ""
            )
            raise self._error(f"an array was expected{hint}")
        self._advance(1)
        if self._peek() == b"]":
            self._advance(1)
        else:
            yield from self._elements()
        if not self._records and self._peek():
            raise self._error("text after the end of the array")
        if self._records:
            self._leave()

    def _elements(self) -> Iterator[Element]:
        while True:
            self._peek()
            end = self._value_end()
            yield Element(self._buffer[self._at : end], self._line, self._column, self._base + self._at)
            self._advance(end - self._at)
            separator = self._peek()
            if separator not in (b",", b"]") or separator == b"":
                raise self._error("a comma or the end of the array was expected")
            self._advance(1)
            if separator == b"]":
                return

    def _enter(self, name: str) -> None:
        """Go to the value of a member, passing those before it."""
        if self._peek() != b"{":
            raise self._error(f"an object with {name!r} was expected")
        self._advance(1)
        while True:
            if self._peek() != b'"':
                raise self._error(f"there is no {name!r} on the path of `records:`")
            end = self._value_end()
            found = self._buffer[self._at : end]
            self._advance(end - self._at)
            if self._peek() != b":":
                raise self._error("a colon was expected")
            self._advance(1)
            if _decoded(found) == name:
                return
            self._peek()
            self._advance(self._value_end() - self._at)
            if self._peek() == b",":
                self._advance(1)

    def _leave(self) -> None:
        """Pass what follows the array, so that a document that is cut off is noticed."""
        for _ in self._records:
            while self._peek() != b"}":
                if self._peek() not in (b",", b":", b'"', b"{", b"["):
                    self._require_scalar()
                if self._peek() in (b",", b":"):
                    self._advance(1)
                else:
                    self._advance(self._value_end() - self._at)
            self._advance(1)
        if self._peek():
            raise self._error("text after the end of the document")

    def _require_scalar(self) -> None:
        if self._peek() == b"":
            raise self._error("the document is cut off")
        if _SCALAR.match(self._buffer, self._at) is None:
            raise self._error("a value was expected")

    def _value_end(self) -> int:
        """Return where the value that begins here ends; afterwards it is in the buffer as a whole."""
        first = self._buffer[self._at : self._at + 1]
        if first in (b"{", b"["):
            return self._container_end()
        pattern = _STRING if first == b'"' else _SCALAR
        while True:
            match = pattern.match(self._buffer, self._at)
            if match is not None and (first == b'"' or match.end() < len(self._buffer)):
                return match.end()
            if not self._more():
                if match is None:
                    raise self._error("a value was expected")
                return match.end()

    def _container_end(self) -> int:
        depth, offset = 0, 0
        while True:
            match = _TO_BRACKET.match(self._buffer, self._at + offset)
            assert match is not None  # the pattern matches nothing, too
            bracket = self._buffer[match.end() : match.end() + 1]
            if bracket in (b"", b'"'):  # cut off here, perhaps inside a string
                if not self._more():
                    raise self._error("this value is cut off")
                continue
            offset = match.end() + 1 - self._at
            depth += 1 if bracket in b"{[" else -1
            if depth == 0:
                return self._at + offset

    def _peek(self) -> bytes:
        """Return the next byte that is no whitespace; nothing at the end."""
        while True:
            rest = self._buffer[self._at : self._at + 256].lstrip(_WHITESPACE)
            if rest:
                self._advance(min(len(self._buffer) - self._at, 256) - len(rest))
                return rest[:1]
            self._advance(min(len(self._buffer) - self._at, 256))
            if self._at == len(self._buffer) and not self._more():
                return b""

    def _advance(self, size: int) -> None:
        passed = self._buffer[self._at : self._at + size]
        self._at += size
        lines = passed.count(b"\n")
        self._line += lines
        self._column = len(passed) - passed.rfind(b"\n") if lines else self._column + size

    def _more(self) -> bool:
        kept = len(self._buffer) - self._at
        if kept > MAX_RECORD_BYTES:
            raise self._error("an element is longer than 64 MiB")
        parts, wanted = [self._buffer[self._at :]], max(kept, 1)
        while wanted > 0 and (chunk := next(self._chunks, None)) is not None:
            parts.append(chunk)
            wanted -= len(chunk)
        self._base += self._at
        self._buffer, self._at = b"".join(parts), 0
        return len(parts) > 1

    def _skip_bom(self) -> None:
        while len(self._buffer) < len(codecs.BOM_UTF8) and self._more():
            pass
        if self._buffer.startswith(codecs.BOM_UTF8):
            self._at = len(codecs.BOM_UTF8)

    def _error(self, what: str) -> ContainerDamagedError:
        return ContainerDamagedError(f"{self._path}: line {self._line}, column {self._column}: {what}")


def _decoded(name: bytes) -> str | None:
    try:
        return str(json.loads(name))
    except ValueError:
        return None
