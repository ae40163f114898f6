"""The column names of a delivery, without loading it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from datops_assets.ingestion.csv_text import open_csv
from datops_assets.ingestion.json_lines import split_lines
from datops_assets.ingestion.json_text import ArrayElements, object_members
from datops_assets.ingestion.source import ArrowDelivery, Delivery, TextDelivery
from datops_assets.ingestion.tables import FileTable, Format

_RECORDS_LOOKED_AT = 100


def columns_of(delivery: Delivery, format_: Format, table: FileTable) -> list[str]:
    """Return the names in delivered order; for JSON those of the first hundred records."""
    if isinstance(delivery, ArrowDelivery):
        return list(delivery.schema().names)
    assert isinstance(delivery, TextDelivery)
    if format_ in ("csv", "excel"):
        return open_csv(delivery.chunks(), table.csv_of(format_), table.pattern).columns
    if format_ == "fixed":
        return [column.name for column in table.fixed.columns] if table.fixed else []
    if format_ == "json":
        elements = ArrayElements(delivery.chunks(), table.records, table.pattern)
        return _keys(element.raw for element in islice(elements, _RECORDS_LOOKED_AT))
    return _keys(line.raw for line in islice(split_lines(delivery.chunks()), _RECORDS_LOOKED_AT))


def _keys(records: Iterable[bytes]) -> list[str]:
    names: dict[str, None] = {}
    for record in records:
        try:
            members = object_members(record.decode())
        except (ValueError, RecursionError):
            continue
        names.update((name, None) for name, _ in members)
    return list(names)
