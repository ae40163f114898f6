"""The row rules of a contract as a pandera schema, and reading what pandera found.

pandera and pandas are imported on first use: two seconds that loading definitions does not pay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datops_assets.quality.contract import Contract
from datops_assets.quality.python_checks import PythonCheck, python_checks

if TYPE_CHECKING:
    import pandas as pd
    import pandera.pandas as pa


def to_pandera(contract: Contract) -> pa.DataFrameSchema:
    """Render the row rules to a schema over text columns named as in the contract.

    Each check's name is the reason that a refused row carries; validate with `lazy=True` to see
    all of them. `clean:` is not part of it: give it cleaned text.
    """
    import pandera.pandas as pa

    by_column: dict[str, list[pa.Check]] = {name: [] for name in contract.columns}
    whole_row = []
    for check in python_checks(contract).checks:
        if check.rule.column is not None:
            by_column[check.rule.column].append(_column_check(check, check.rule.column))
        else:
            whole_row.append(_row_check(check))
    columns = {
        name: pa.Column(None, checks=checks, nullable=True, required=True)
        for name, checks in by_column.items()
    }
    return pa.DataFrameSchema(columns, checks=whole_row)


def failures(schema: pa.DataFrameSchema, frame: pd.DataFrame) -> list[tuple[int, str | None, str]]:
    """Validate and return (position, column, check) of every failing row; position -1 concerns the whole frame."""
    import pandera.errors

    plain = frame.reset_index(drop=True)
    try:
        schema.validate(plain, lazy=True)
    except pandera.errors.SchemaErrors as errors:
        # One row a failing cell; a row-wise check of a frame repeats its row for every column.
        found = errors.failure_cases[["index", "schema_context", "column", "check"]].itertuples(index=False)
        cases = [
            (
                -1 if index is None or index != index else int(index),
                None if context == "DataFrameSchema" else column,
                str(check),
            )
            for index, context, column, check in found
        ]
        return list(dict.fromkeys(cases))
    return []


def _column_check(check: PythonCheck, name: str) -> pa.Check:
    import pandera.pandas as pa

    return pa.Check(
        lambda text: not check.breaks({name: _present(text)}),
        element_wise=True,
        ignore_na=False,
        name=check.rule.reason,
    )


def _row_check(check: PythonCheck) -> pa.Check:
    import pandera.pandas as pa

    return pa.Check(
        lambda row: not check.breaks({str(name): _present(text) for name, text in row.items()}),
        element_wise=True, ignore_na=False, name=check.rule.reason,
    )  # fmt: skip


def _present(text: Any) -> str | None:
    return text if isinstance(text, str) else None
