"""Rows of the log into rows of COPY: many at once as one by one, and what goes in comes out."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datops_assets.cdc.splice import _FEWEST_AT_ONCE, BinaryRows, Numbering, TextRows, splice_many
from datops_assets.cdc.wire import Begin

COLUMNS = 4
values = st.one_of(st.none(), st.just(...), st.binary(max_size=40), st.binary(min_size=250, max_size=300))
rows = st.lists(
    st.tuples(st.sampled_from("IUD"), st.lists(values, min_size=COLUMNS, max_size=COLUMNS)), max_size=60
)


def message(kind: str, fields: list[object], value_kind: bytes = b"b") -> bytes:
    parts = [kind.encode(), b"\0\0\0\x07", b"K" if kind == "D" else b"N", struct.pack(">h", len(fields))]
    for field in fields:
        if field is None:
            parts.append(b"n")
        elif isinstance(field, bytes):
            parts.append(value_kind + struct.pack(">I", len(field)) + field)
        else:
            parts.append(b"u")
    return b"".join(parts)


def fields_of(copied: bytes) -> list[list[bytes | None]]:
    """Rows of binary COPY without head and end."""
    at, found = 0, []
    while at < len(copied):
        (count,) = struct.unpack_from(">h", copied, at)
        at += 2
        fields: list[bytes | None] = []
        for _ in range(count):
            (size,) = struct.unpack_from(">i", copied, at)
            at += 4
            fields.append(None if size < 0 else copied[at : at + size])
            at += max(size, 0)
        found.append(fields)
    return found


def parsed(copied: bytes) -> dict[tuple[int, int], tuple[object, ...]]:
    """Rows of binary COPY without head and end, by (commit_lsn, seq)."""
    return {
        (struct.unpack(">Q", lsn)[0], struct.unpack(">q", seq)[0]): tuple(rest)
        for lsn, seq, *rest in fields_of(copied)
    }


def numbered(changes: list[tuple[str, list[object]]]) -> tuple[Numbering, list[bytes], list[int]]:
    """Three changes a transaction."""
    numbering, messages, numbers = Numbering(), [], []
    for place, (kind, fields) in enumerate(changes):
        if place % 3 == 0:
            numbering.begin(Begin(1000 + place, 77 - place, 4_000_000_000 + place))
        messages.append(message(kind, fields))
        numbers.append(numbering.next)
        numbering.next += 1
    return numbering, messages, numbers


@pytest.mark.cdc_case(13)
@settings(max_examples=150, deadline=None)
@given(rows)
def test_many_at_once_are_what_they_are_one_by_one(changes: list[tuple[str, list[object]]]) -> None:
    """Case 13: any lengths, nulls, values left out, in any transaction."""
    numbering, messages, numbers = numbered(changes)
    rows = BinaryRows(COLUMNS, numbering)
    rows.messages, rows.numbers = messages, numbers
    taken = b"".join(rows.take())
    opening, closing = BinaryRows._opening, BinaryRows._closing
    assert taken.startswith(opening) and taken.endswith(closing)
    found = parsed(taken[len(opening) : -len(closing)])
    assert len(found) == len(changes)
    for place, (kind, fields) in enumerate(changes):
        first = place - place % 3
        op, xid, at, mask, *sent = found[1000 + first, place - first + 1]
        holes = [number for number, field in enumerate(fields, start=1) if field is ...]
        assert op == kind.lower().encode()
        assert struct.unpack(">q", xid) == (4_000_000_000 + first,)
        assert struct.unpack(">q", at) == (77 - first,)
        assert sent == [field if isinstance(field, bytes) else None for field in fields]
        assert (mask is None) == (not holes)
        if mask is not None:
            assert [n for _, n in struct.iter_unpack(">ih", mask[20:])] == holes


@pytest.mark.cdc_case(13)
@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(values.filter(lambda v: v is not ...), min_size=COLUMNS, max_size=COLUMNS), max_size=60)
)
def test_inserts_without_our_columns_are_what_was_sent(fields: list[list[object]]) -> None:
    numbering, messages, numbers = numbered([("I", row) for row in fields])
    rows = BinaryRows(COLUMNS, numbering)
    rows.messages, rows.numbers = messages, numbers
    pieces = rows.inserts()
    assert rows.count == len(fields), "they are taken only once they are in the mirror"
    if len(fields) < _FEWEST_AT_ONCE:
        assert pieces is None
        return
    assert pieces is not None
    assert fields_of(b"".join(pieces[1:-1])) == fields
    rows.let_go()
    assert rows.is_empty
    assert rows.last == numbering.place(len(fields) - 1)
    rows.messages, rows.numbers = [*messages, message("D", fields[0])], [*numbers, len(fields)]
    assert rows.inserts() is None


@pytest.mark.cdc_case(5, 13)
@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.one_of(st.none(), st.text(alphabet=st.characters(blacklist_characters="\0", codec="utf-8"))),
        min_size=1,
        max_size=5,
    )
)
def test_values_as_text_come_back(fields: list[str | None]) -> None:
    """Case 5: tabs, newlines, backslashes, the words that COPY has for null."""
    numbering = Numbering()
    numbering.begin(Begin(1, -1, 1))
    rows = TextRows(len(fields), numbering)
    rows.add(b"i", message("I", [f if f is None else f.encode() for f in fields], b"t"), 6)
    line = b"".join(rows.take()).decode()
    assert line.count("\n") == 1
    back = {"\\N": None}
    escapes = {"t": "\t", "n": "\n", "r": "\r", "\\": "\\"}

    def unescaped(field: str) -> str:
        parts, at = [], 0
        while at < len(field):
            if field[at] == "\\":
                at += 1
                parts.append(escapes[field[at]])
            else:
                parts.append(field[at])
            at += 1
        return "".join(parts)

    sent = line[:-1].split("\t")[6:]
    assert [back[field] if field in back else unescaped(field) for field in sent] == fields


@pytest.mark.cdc_case(13)
def test_rows_of_another_width_are_not_for_this_form() -> None:
    numbering, messages, numbers = numbered([("I", [b"a", b"b"]), ("I", [b"a", b"b", None, b"c"])])
    spliced, left = splice_many(messages, numbers, numbering, COLUMNS)
    assert left == [0]
    assert len(parsed(spliced)) == 1
