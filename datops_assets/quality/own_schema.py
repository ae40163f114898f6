"""A team's own pandera schema as one more rule of a contract, run on typed batches in pandas.

Only schemas that judge row by row: batches are all they see. pandera and pandas are imported on
first use.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from psycopg import sql
from psycopg.sql import SQL

from datops_assets.errors import DeclarationError
from datops_assets.quality.contract import Contract
from datops_assets.quality.judged import CheckResult, Subject, threshold_kept
from datops_assets.quality.pandera_schema import failures
from datops_assets.quality.stage import Stage

if TYPE_CHECKING:
    import pandas as pd
    import pandera.pandas as pa

CHECK_NAME = "pandera"
_MARK = " (pandera)"
BATCH_ROWS = 50_000
"""Rows of one batch in pandas: about 100 MB for a table of ten columns."""

# Vectorised, but each row's verdict depends on that row alone.
_ROW_WISE = frozenset(
    "equal_to not_equal_to greater_than greater_than_or_equal_to less_than less_than_or_equal_to in_range isin notin"
    " str_matches str_contains str_startswith str_endswith str_length".split()
)
_DTYPES = {
    "smallint": "Int16", "integer": "Int32", "bigint": "Int64", "double": "Float64", "boolean": "boolean",
    "date": "datetime64[us]", "timestamp": "datetime64[us]", "timestamptz": "datetime64[us, UTC]",
}  # fmt: skip


def refuse(stage: Stage) -> None:
    """Put the rows that the contract's own schema refuses into `_refused`; nothing without one."""
    contract = stage.query.subject.contract
    if contract.pandera is None:
        return
    schema = load_own_schema(contract.pandera)
    outputs = SQL(", ").join([SQL("_load_id"), SQL("_row"), *map(sql.Identifier, contract.columns)])
    with stage.conn.cursor(name="datops_typed_rows") as rows:
        rows.execute(SQL("select {} from {}").format(outputs, stage.table))
        while batch := rows.fetchmany(BATCH_ROWS):
            frame = typed_frame(contract, [row[2:] for row in batch])
            refused = own_failures(schema, frame, contract.pandera)
            with stage.conn.cursor() as cursor, cursor.copy("copy _refused from stdin") as copy:
                for position, reason in refused:
                    copy.write_row((*batch[position][:2], reason))


def results(subject: Subject, reasons: Mapping[str, int], rows_judged: int) -> list[CheckResult]:
    """The one check result of a contract's own schema."""
    if subject.contract.pandera is None:
        return []
    failed = sum(rows for reason, rows in reasons.items() if reason.endswith(_MARK))
    return [
        CheckResult(
            CHECK_NAME,
            None,
            "error",
            rows_judged,
            min(failed, rows_judged),
            threshold_kept(failed, rows_judged, None, None),
        )
    ]


def load_own_schema(path: str) -> pa.DataFrameSchema:
    """Import a team's schema (`package.module:Name`), and refuse one that needs the whole table.

    raises  DeclarationError: it cannot be imported, is no schema, or does not judge row by row
    """
    import pandera.pandas as pa

    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise DeclarationError([f"pandera: {path} cannot be imported ({type(error).__name__})"]) from error
    if isinstance(found, type) and issubclass(found, pa.DataFrameModel):
        found = found.to_schema()
    if not isinstance(found, pa.DataFrameSchema):
        raise DeclarationError(
            [f"pandera: {path} is not a schema, expected a DataFrameSchema or a DataFrameModel"]
        )
    problem = next(_whole_table_needs(found), None)
    if problem:
        raise DeclarationError(
            [
                f"pandera: {path} needs the whole table ({problem}), and rows are judged in batches;"
                f" use a rule of the contract instead"
            ]
        )
    return found


def _whole_table_needs(schema: pa.DataFrameSchema) -> Iterator[str]:
    if schema.unique:
        yield f"unique {', '.join(map(str, schema.unique))}"
    for name, column in schema.columns.items():
        if column.unique:
            yield f"unique {name}"
        yield from (_check_needs(check, str(name)) for check in column.checks if not _is_row_wise(check))
    yield from (_check_needs(check, "the frame") for check in schema.checks if not _is_row_wise(check))
    if schema.index is not None:
        yield "an index"


def _is_row_wise(check: Any) -> bool:
    return not check.groupby and (check.element_wise or check.name in _ROW_WISE)


def _check_needs(check: Any, where: str) -> str:
    return (
        f"check {check.name or 'without a name'} on {where}; one that looks at one row says element_wise=True"
    )


def typed_frame(contract: Contract, rows: Sequence[Sequence[Any]]) -> pd.DataFrame:
    """A batch of silver rows with nullable pandas types; numeric stays Decimal, so that nothing is rounded."""
    import pandas as pd

    columns: Mapping[str, Any] = dict(zip(contract.columns, zip(*rows, strict=True), strict=True))
    series = {}
    for name, values in columns.items():
        family = contract.columns[name].kind.family
        dtype = "str" if family == "text" else _DTYPES.get(family, "object")
        series[name] = pd.Series(list(values), dtype=dtype)
    return pd.DataFrame(series)


def own_failures(schema: pa.DataFrameSchema, frame: pd.DataFrame, path: str) -> list[tuple[int, str]]:
    """Rows that a team's schema refuses, each with its reason; never a value.

    raises  DeclarationError: the schema does not fit the contract's columns or their types
    """
    found = failures(schema, frame)
    misfit = sorted(
        {f"{column or 'the frame'}: {check}" for position, column, check in found if position < 0}
    )
    if misfit:
        raise DeclarationError([f"pandera: {path} does not fit the contract: {'; '.join(misfit)}"])
    return [(position, f"{column or 'row'}: {check}{_MARK}") for position, column, check in found]
