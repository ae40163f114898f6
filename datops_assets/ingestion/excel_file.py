"""A sheet of an Excel workbook as CSV text.

Cells have a type each, columns have none: one cell says 7, the next one n/a. So bronze holds text,
as it does for CSV, and a contract says what a column is. Numbers are the digits that Excel stores,
dates are ISO dates, errors are the words Excel shows, formulas are their stored results.
"""

from __future__ import annotations

import datetime as dt
import re
import zipfile
from collections.abc import Iterator
from itertools import islice
from typing import IO, Any

from datops_assets.errors import DatopsError
from datops_assets.ingestion.source import TextDelivery, Unit
from datops_assets.ingestion.store import Store, broken
from datops_assets.ingestion.tables import ExcelOptions
from datops_assets.ingestion.typed_file import driver

_ROWS_AT_ONCE = 1000
_QUOTED = re.compile(r'[,"\r\n]')
_MOST_STRINGS_BYTES = 512 << 20
_EXACT_BELOW = 1e15


class ExcelText(TextDelivery):
    """One sheet, row by row, its header first."""

    def __init__(self, unit: Unit, store: Store, options: ExcelOptions) -> None:
        self._unit = unit
        self._store = store
        self._options = options
        self._path = store.local_path(unit)
        self._openpyxl = driver("openpyxl", "excel", f"{unit.path} is an Excel workbook, which")

    def chunks(self) -> Iterator[bytes]:
        """Yield the rows as CSV, UTF-8; empty rows are left out."""
        with self._path.open("rb") as file:  # its name need not end in .xlsx
            try:
                self._require_bounded(file)
                book = self._openpyxl.load_workbook(file, read_only=True, data_only=True)
            except Exception as error:
                raise self._damaged(error) from None
            try:
                yield from self._lines(self._sheet(book))
            finally:
                book.close()

    def content_hash(self) -> str:
        """Return the hash of the workbook."""
        return self._store.hash_content(self._unit)

    def close(self) -> None:
        """Nothing stays open."""

    def _sheet(self, book: Any) -> Any:
        wanted, names = self._options.sheet, [sheet.title for sheet in book.worksheets]
        if wanted is not None:
            if wanted not in names:
                raise self._refused(f"has no sheet {wanted!r}, it has: {', '.join(names)}")
            return book[wanted]
        shown = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"] or book.worksheets
        if len(shown) != 1:
            raise self._refused(
                f"has {len(shown)} sheets ({', '.join(sheet.title for sheet in shown[:10])}); state which with"
                " `excel: {sheet: …}`"
            )
        return shown[0]

    def _lines(self, sheet: Any) -> Iterator[bytes]:
        sheet.reset_dimensions()  # some programs write wrong ones, and rows would be missing
        rows = islice(self._rows(sheet), self._options.header_row - 1, None)
        header = _without_empty_end(next(rows, []))
        if not header:
            return
        width = len(header)
        lines = [_line(header)]
        for row in rows:
            fields = _without_empty_end(row)
            if fields:
                lines.append(_line(fields + [None] * (width - len(fields))))
            if len(lines) >= _ROWS_AT_ONCE:
                yield b"".join(lines)
                lines = []
        yield b"".join(lines)

    def _rows(self, sheet: Any) -> Iterator[list[str | None]]:
        source = sheet.iter_rows()
        while True:
            try:
                row = next(source, None)
                fields = None if row is None else [_text(cell) for cell in row]
            except Exception as error:
                raise self._damaged(error) from None
            if fields is None:
                return
            yield fields

    def _require_bounded(self, file: IO[bytes]) -> None:
        """Refuse a workbook whose texts alone would fill the memory: they are read as a whole."""
        with zipfile.ZipFile(file) as container:
            sizes = [
                info.file_size
                for info in container.infolist()
                if not info.filename.startswith("xl/worksheets/")
            ]
        if max(sizes, default=0) > _MOST_STRINGS_BYTES:
            raise self._refused("unpacks to more than 512 MiB of texts; deliver it as CSV or Parquet")

    def _damaged(self, error: Exception) -> Exception:
        if isinstance(error, DatopsError):
            return error
        return self._refused(
            f"is not a whole Excel workbook (.xlsx) ({type(error).__name__}); deliver it again"
        )

    def _refused(self, what: str) -> DatopsError:
        return broken(self._unit, f" {what}", lambda: self._store.require_unchanged(self._unit))


def _without_empty_end(fields: list[str | None]) -> list[str | None]:
    end = len(fields)
    while end and fields[end - 1] is None:
        end -= 1
    return fields[:end]


def _line(fields: list[str | None]) -> bytes:
    return (",".join(map(_field, fields)) + "\n").encode("utf-8", "surrogatepass")


def _field(text: str | None) -> str:
    if text is None:
        return ""
    if text == "" or _QUOTED.search(text):
        return '"' + text.replace('"', '""') + '"'
    return text


def _text(cell: Any) -> str | None:
    value = cell.value
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dt.datetime):
        return _moment(value, cell.number_format)
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return _span(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT_BELOW:
        return str(int(value))
    return str(value)


def _moment(value: dt.datetime, number_format: str) -> str:
    """A date where its format shows no time, as a person sees it."""
    from openpyxl.styles.numbers import is_datetime

    if is_datetime(number_format) == "date" and value.time() == dt.time():
        return value.date().isoformat()
    return value.isoformat(sep=" ")


def _span(value: dt.timedelta) -> str:
    seconds = value.total_seconds()
    sign, size = ("-", -seconds) if seconds < 0 else ("", seconds)
    whole = int(size)
    fraction = f"{size - whole:.6f}".rstrip("0").removeprefix("0").rstrip(".")
    return f"{sign}{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}{fraction}"
