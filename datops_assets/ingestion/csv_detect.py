"""How a CSV text is written, where its declaration leaves that to be found out. Pure.

Nothing is guessed in silence: what was found, and by what, is entered with the load. What cannot be
told is refused.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from itertools import islice

from datops_assets.errors import ContainerDamagedError
from datops_assets.ingestion.csv_records import CsvDialect, CsvRecords

AUTO = "auto"
DELIMITERS = (",", ";", "\t", "|")
SAMPLE_BYTES = 1 << 16
_MOST_RECORDS = 50
_GUESSED = (
    "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "iso8859_2", "iso8859_15",
    "koi8_r", "cp437", "cp850", "cp866", "mac_roman", "cp932", "euc_jp", "gb18030", "big5", "cp949",
)  # fmt: skip
"""Those in which files are written; among all that Python knows, some fit any bytes."""
_MARKS: tuple[tuple[bytes, str], ...] = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def detect_encoding(sample: bytes, path: str) -> tuple[str, str]:
    """Return the encoding of a text and what it was told by.

    sample     its first bytes
    raises     ContainerDamagedError: it cannot be told
    """
    for mark, encoding in _MARKS:
        if sample.startswith(mark):
            return encoding, "its byte order mark"
    if b"\0" not in sample and _is_utf8(sample):
        return "utf-8", "valid UTF-8"
    from charset_normalizer import from_bytes

    best = from_bytes(sample, cp_isolation=list(_GUESSED)).best()
    if best is None or b"\0" in sample:
        raise ContainerDamagedError(
            f"{path}: its encoding cannot be told; state it, such as `csv: {{encoding: windows-1252}}`"
        )
    return codecs.lookup(best.encoding).name, "a guess from its letters"


def detect_delimiter(sample: bytes, newline: bytes, path: str) -> tuple[str, str]:
    """Return the delimiter of a text and what it was told by.

    sample     its first bytes as UTF-8, header first
    raises     ContainerDamagedError: it cannot be told
    """
    found = {}
    for delimiter in DELIMITERS:
        widths = _widths(sample, delimiter, newline)
        if widths and widths[0] > 1:
            found[delimiter] = widths
    even = {delimiter: widths[0] for delimiter, widths in found.items() if len(set(widths)) == 1}
    if not found:
        return ",", "one column"
    best = [delimiter for delimiter, width in even.items() if width == max(even.values())]
    if len(best) == 1:
        return best[0], f"{even[best[0]]} fields in each of the first {len(found[best[0]])} records"
    if not best and len(found) == 1:
        (only,) = found
        return only, f"{found[only][0]} fields in the header"
    raise ContainerDamagedError(
        f"{path}: its delimiter cannot be told ({' or '.join(map(_shown, best or found))} would do);"
        " state it, such as `csv: {delimiter: ';'}`"
    )


def _widths(sample: bytes, delimiter: str, newline: bytes) -> Sequence[int]:
    """Fields of the first records; the last one may be cut off and does not count."""
    records = list(
        islice(CsvRecords(iter([sample]), CsvDialect(delimiter.encode(), newline)), _MOST_RECORDS + 1)
    )
    if len(records) > 1 and (len(records) > _MOST_RECORDS or not sample.endswith(newline)):
        del records[-1]
    return [0 if record.fields is None else len(record.fields) for record in records]


def _shown(delimiter: str) -> str:
    return "a tab" if delimiter == "\t" else delimiter


def _is_utf8(sample: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return False
    return True
