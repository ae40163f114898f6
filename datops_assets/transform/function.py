"""A team's Python function: rows come in as a pandas DataFrame, a DataFrame goes out.

Belongs here: making frames of rows, holding what comes back against what was declared, and writing
it as text for COPY. Does not: the transaction (build.py). A frame holds `batch_rows` rows, or all of
them up to `most_rows`; that is the memory it takes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from datops_assets.errors import TerminalError
from datops_assets.transform.kinds import Kind, family
from datops_assets.transform.own import Python

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_PANDAS = {
    "smallint": "Int16",
    "integer": "Int32",
    "bigint": "Int64",
    "double precision": "float64",
    "boolean": "boolean",
    "text": "str",
}


class FunctionError(TerminalError):
    """A team's function cannot be found, fails, or returns something else than it declared.

    Next: correct the function; its own error is in the log of the run.
    """


class Rows(Protocol):
    """An open cursor."""

    @property
    def description(self) -> Any:
        """Its columns."""

    def fetchmany(self, size: int, /) -> Sequence[Sequence[Any]]:
        """The next rows; none at the end."""


def find_function(path: str) -> Callable[..., Any]:
    """Import `package.module:function`.

    raises    FunctionError: it cannot be imported, or is no function
    """
    module, _, attribute = path.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except Exception as error:  # whatever a stranger's module raises when it is imported
        raise FunctionError(
            f"the function {path} cannot be imported ({type(error).__name__}: {error});"
            " expected package.module:function of an installed package"
        ) from error
    if not callable(found):
        raise FunctionError(f"{path} is no function, expected one that takes a DataFrame and returns one")
    return found


def results(rows: Rows, step: Python) -> Iterator[bytes]:
    """CSV for COPY, a piece for each call of the function.

    raises    FunctionError
    """
    call = find_function(step.function)
    size = step.most_rows + 1 if step.whole else step.batch_rows
    kinds: dict[str, Kind] | None = None
    called = False
    while True:
        found = rows.fetchmany(size)
        if not found and called:
            return
        if step.whole and len(found) > step.most_rows:
            raise FunctionError(
                f"{step.function} wants all rows, and there are more than most_rows ({step.most_rows});"
                " raise it if the memory is there, or let the function take batches"
            )
        kinds = kinds or _kinds(rows)
        made = _call(call, _frame(found, kinds), step)
        called = True
        yield _as_csv(made, step)


_SERVER_NAMES = {
    "int2": "smallint",
    "int4": "integer",
    "int8": "bigint",
    "float8": "double precision",
    "bool": "boolean",
}


def _kinds(rows: Rows) -> dict[str, Kind]:
    import psycopg

    found: dict[str, Kind] = {}
    for column in rows.description:
        info = psycopg.adapters.types.get(column.type_code)
        found[column.name] = _SERVER_NAMES.get(info.name, info.name) if info else None
    return found


def _frame(rows: Sequence[Sequence[Any]], kinds: dict[str, Kind]) -> pd.DataFrame:
    """Typed columns: whole numbers and booleans keep their nulls, numeric stays Decimal."""
    import pandas as pd

    values = list(zip(*rows, strict=True)) if rows else [()] * len(kinds)
    columns: dict[str, Any] = {}
    for (word, kind), column in zip(kinds.items(), values, strict=True):
        if kind == "timestamptz":
            columns[word] = pd.Series(pd.to_datetime(list(column), utc=True), dtype="datetime64[us, UTC]")
        elif kind == "timestamp":
            columns[word] = pd.Series(list(column), dtype="datetime64[us]")
        else:
            columns[word] = pd.Series(list(column), dtype=_PANDAS.get(str(kind), "object"))
    return pd.DataFrame(columns)


def _call(call: Callable[..., Any], frame: pd.DataFrame, step: Python) -> pd.DataFrame:
    import pandas as pd

    try:
        made = call(frame)
    except Exception as error:  # a stranger's code; its text may hold values, so only its kind is said
        raise FunctionError(
            f"{step.function} failed ({type(error).__name__}, {_line_of(error)}); the table is as it was"
        ) from None
    if not isinstance(made, pd.DataFrame):
        raise FunctionError(f"{step.function} returned {type(made).__name__}, expected a pandas DataFrame")
    missing = [word for word in step.columns if word not in made.columns]
    more = [str(word) for word in made.columns if word not in step.columns]
    if missing or more:
        parts = ([f"without {', '.join(missing)}"] if missing else []) + (
            [f"with {', '.join(more)}"] if more else []
        )
        raise FunctionError(
            f"{step.function} returned a frame {' and '.join(parts)}; `columns:` says what it returns"
        )
    return made


def _line_of(error: Exception) -> str:
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return f"{at.tb_frame.f_code.co_filename}:{at.tb_lineno}" if at else "somewhere"


def _as_csv(made: pd.DataFrame, step: Python) -> bytes:
    import pyarrow as pa
    from pyarrow import csv

    arrays = [_array(made[word], kind, step, word) for word, kind in step.kinds().items()]
    table = pa.table(arrays, names=list(step.columns))
    text = io.BytesIO()
    # Every value in quotes and a null without: COPY tells an empty text from none.
    csv.write_csv(table, text, csv.WriteOptions(include_header=False, quoting_style="all_valid"))
    return text.getvalue()


def _array(values: pd.Series[Any], kind: str, step: Python, word: str) -> pa.Array:
    import pyarrow as pa

    types = {
        "smallint": pa.int16(),
        "integer": pa.int32(),
        "bigint": pa.int64(),
        "double precision": pa.float64(),
        "boolean": pa.bool_(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us"),
        "timestamptz": pa.timestamp("us", tz="UTC"),
    }
    try:
        plain = types.get(str(family(kind)))
        if plain is not None:
            return pa.array(values, type=plain, from_pandas=True)
        texts = values.map(_text, na_action="ignore")
        return pa.array(texts, type=pa.string(), from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        raise FunctionError(
            f"{step.function} returned values in {word} that are no {kind}; cast them in the function"
        ) from None


def _text(value: Any) -> str:
    import json

    if isinstance(value, bytes):
        return "\\x" + value.hex()
    return json.dumps(value) if isinstance(value, dict | list) else str(value)
