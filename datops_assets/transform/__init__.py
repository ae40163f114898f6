"""Transformations: steps that make one table of others, as one select in the warehouse.

Knows no Dagster, no contract and no environment; connections come as arguments. What reads a
document is imported at once; sqlglot, pandas and the driver when they are needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from datops_assets.transform.document import BUILT_IN, StepDocument, inputs_of
from datops_assets.transform.kinds import Columns, Kind, read_kind
from datops_assets.transform.own import Python
from datops_assets.transform.statement import (
    Statement,
    build_statement,
    column_lineage,
    silver_table,
)
from datops_assets.transform.step import (
    ColumnName,
    Engine,
    Given,
    Input,
    Made,
    Parameters,
    Step,
    StepError,
    Table,
)

if TYPE_CHECKING:
    from datops_assets.transform.build import Built, TransformError, build_table, read_columns
    from datops_assets.transform.function import FunctionError, find_function

__all__ = [
    "BUILT_IN",
    "Built",
    "ColumnName",
    "Columns",
    "Engine",
    "FunctionError",
    "Given",
    "Input",
    "Kind",
    "Made",
    "Parameters",
    "Python",
    "Statement",
    "Step",
    "StepDocument",
    "StepError",
    "Table",
    "TransformError",
    "build_statement",
    "build_table",
    "column_lineage",
    "find_function",
    "inputs_of",
    "read_columns",
    "read_kind",
    "silver_table",
]

_LATER = {
    "build": ["Built", "TransformError", "build_table", "read_columns"],
    "function": ["FunctionError", "find_function"],
}
_HOME = {name: module for module, names in _LATER.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
