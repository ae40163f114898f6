"""The beginning of a CSV text: encoding, byte order mark, kind of line end, header."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain

from datops_assets.errors import ContainerDamagedError
from datops_assets.ingestion.csv_check import CONFLICT_MARKER
from datops_assets.ingestion.csv_detect import AUTO, SAMPLE_BYTES, detect_delimiter, detect_encoding
from datops_assets.ingestion.csv_records import CsvDialect, CsvRecords, Record, is_utf8_text
from datops_assets.ingestion.packed import packing_found
from datops_assets.ingestion.tables import CsvOptions

_KEEP = "datops-keep-bytes"
_LOOKED_AT_BYTES = 16


@dataclass(frozen=True)
class CsvText:
    """A CSV text past its header."""

    columns: list[str]
    """Names as delivered; empty when there is no record at all."""
    dialect: CsvDialect
    crlf: bool
    position: int
    """Byte offset of the first record."""
    chunks: Iterator[bytes]
    """UTF-8 from there on, cut anywhere; bytes that could not be decoded are invalid UTF-8 still."""
    read_as: dict[str, str] = field(default_factory=dict)
    """What was found out of how it is written, and by what; empty where all of it is declared."""


def open_csv(chunks: Iterator[bytes], options: CsvOptions, path: str) -> CsvText:
    """Read the header of a CSV text.

    raises     ContainerDamagedError: it is no text, or its header cannot be read
    """
    read_as: dict[str, str] = {}
    first = _at_least(chunks, SAMPLE_BYTES if options.encoding == AUTO else _LOOKED_AT_BYTES)
    if options.encoding == AUTO:
        encoding, by = detect_encoding(first[:SAMPLE_BYTES], path)
        options = replace(options, encoding=encoding)
        read_as |= {"encoding": encoding, "encoding_by": by}
    _require_text(first, options, path)
    text = chain([first], chunks)
    if not is_utf8(options.encoding):
        text = chain(transcoded(text, options.encoding))
    first = _at_least(text, SAMPLE_BYTES if options.delimiter == AUTO else _LOOKED_AT_BYTES)
    bom = len(codecs.BOM_UTF8) if first.startswith(codecs.BOM_UTF8) else 0
    newline, crlf = _line_end(first)
    if options.delimiter == AUTO:
        delimiter, by = detect_delimiter(first[bom:SAMPLE_BYTES], newline, path)
        options = replace(options, delimiter=delimiter)
        read_as |= {"delimiter": delimiter, "delimiter_by": by}
    dialect = CsvDialect(options.delimiter.encode(), newline, encoding=options.encoding)
    reader = CsvRecords(chain([first[bom:]], text), dialect, position=bom)
    record = next(iter(reader), None)
    if record is None:
        return CsvText([], dialect, crlf, reader.position, iter(()), read_as)
    if options.header:
        names = _names(record, path, options)
        dialect = replace(dialect, width=len(names), header=record.raw)
        ahead, rest = reader.rest()
        return CsvText(names, dialect, crlf, reader.position, chain([ahead], rest), read_as)
    # The first record is data: hand it out again, with whatever stood before the read-ahead.
    width = 1 if record.fields is None else len(record.fields)
    dialect = replace(dialect, width=width)
    ahead, rest = reader.rest()
    again = record.raw + (b"\r\n" if crlf else newline)
    return CsvText(
        [f"column_{n + 1}" for n in range(width)],
        dialect,
        crlf,
        record.position,
        chain([again, ahead], rest),
        read_as,
    )


def transcoded(chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """Turn text of another encoding into UTF-8; a byte that is wrong there stays wrong here."""
    decoder = codecs.getincrementaldecoder(encoding)(errors=_KEEP)
    for chunk in chunks:
        yield decoder.decode(chunk).encode("utf-8", "surrogatepass")
    yield decoder.decode(b"", final=True).encode("utf-8", "surrogatepass")


def delivered_bytes(raw: bytes, encoding: str) -> bytes:
    """Return a record's bytes as they were before `transcoded`."""
    if is_utf8(encoding):
        return raw
    try:
        return raw.decode("utf-8", "surrogatepass").encode(encoding, _KEEP)
    except UnicodeError:
        return raw


def is_utf8(encoding: str) -> bool:
    """Return whether the bytes need no transcoding."""
    return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig", "ascii")


def _keep_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    """Carry undecodable bytes through as lone surrogates, and back."""
    if isinstance(error, UnicodeDecodeError):
        return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end
    if isinstance(error, UnicodeEncodeError):
        codes = [ord(character) - 0xDC00 for character in error.object[error.start : error.end]]
        if all(0 <= code < 256 for code in codes):
            return bytes(codes), error.end
    raise error


codecs.register_error(_KEEP, _keep_bytes)


def _at_least(chunks: Iterator[bytes], size: int) -> bytes:
    gathered = b""
    while len(gathered) < size:
        chunk = next(chunks, None)
        if chunk is None:
            break
        gathered += chunk
    return gathered


def _require_text(first: bytes, options: CsvOptions, path: str) -> None:
    if (packing := packing_found(first)) is not None:
        raise ContainerDamagedError(f"{path} is packed twice ({packing} inside); pack it once")
    if first.startswith(b"PAR1"):
        raise ContainerDamagedError(f"{path} holds Parquet data; state `format: parquet`")
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and is_utf8(options.encoding):
        raise ContainerDamagedError(f"{path} is UTF-16; state `csv: {{encoding: utf-16}}`")


def _line_end(first: bytes) -> tuple[bytes, bool]:
    """Return the byte that ends a record, and whether CR LF does."""
    at = 0
    while (found := _next_line_end(first, at)) >= 0:
        if first.count(b'"', 0, found) % 2 == 0:
            if first[found : found + 1] == b"\n":
                return b"\n", False
            return (b"\n", True) if first[found + 1 : found + 2] in (b"\n", b"") else (b"\r", False)
        at = found + 1
    return b"\n", False


def _next_line_end(text: bytes, at: int) -> int:
    feed = text.find(b"\n", at)
    returned = text.find(b"\r", at, feed if feed >= 0 else len(text))
    return returned if returned >= 0 else feed


def _names(record: Record, path: str, options: CsvOptions) -> list[str]:
    if record.damage is not None or record.fields is None:
        if is_utf8(options.encoding) and not is_utf8_text(record.raw):
            raise ContainerDamagedError(
                f"{path}: the header cannot be read: bytes that are not {options.encoding};"
                " state how it is written, such as `csv: {encoding: latin-1}` or windows-1252"
            )
        raise ContainerDamagedError(f"{path}: the header cannot be read: {record.damage}")
    if CONFLICT_MARKER.fullmatch(record.raw):
        raise ContainerDamagedError(f"{path}: a merge-conflict marker stands where the header belongs")
    return [(field or b"").decode() for field in record.fields]
