"""Assertions that say what differs, for pytest or any other runner. No warehouse, no Dagster."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from datops_assets.quality import Contract, test_contract
from datops_assets.quality.contract_tests import as_delivered

_SHOWN = 10
Row = Mapping[str, Any]


def assert_contract(
    rows: Any,
    contract: Contract | Mapping[str, Any] | str | Path,
    table: str | None = None,
    *,
    rename: Mapping[str, str] | None = None,
    path: str = "",
) -> None:
    """Hold rows against the row rules of a contract, as the warehouse would judge them.

    rows       mappings by delivered name, a pandas DataFrame, or a pyarrow Table
    contract   a Contract, its mapping as in a document, or the path of a pipeline document
    table      which one of the document; not needed where it has one
    rename     delivered name: contract name; a document brings its own
    path       the file's path, for columns taken `from: filename`
    raises     AssertionError: rows would be set aside; it counts the reasons and names rows, and holds no value
    """
    found, names = _contract_of(contract, table)
    texts = [{name: as_delivered(_plain(value)) for name, value in row.items()} for row in _rows_of(rows)]
    trial = test_contract(found, texts, rename=rename if rename is not None else names, path=path)
    if not trial.failing:
        return
    lines = [f"{trial.failing} of {trial.rows} row(s) would be set aside:"]
    places: dict[str, list[int]] = {}
    for place, reasons in trial.verdicts.items():
        for reason in reasons:
            places.setdefault(reason, []).append(place)
    for reason, rows_ in sorted(places.items(), key=lambda item: (-len(item[1]), item[0]))[:_SHOWN]:
        shown = ", ".join(map(str, rows_[:5])) + (", …" if len(rows_) > 5 else "")
        lines.append(f"  {reason}: {len(rows_)} (row {shown})")
    lines += [f"  not judged here: {sentence}" for sentence in trial.not_judged]
    raise AssertionError("\n".join(lines))


def assert_rows_equal(
    actual: Any,
    expected: Any,
    *,
    key: str | Sequence[str] | None = None,
    ignore_order: bool = False,
    tolerance: float = 0.0,
    columns: Sequence[str] | None = None,
) -> None:
    """Hold rows against others, and say which rows are missing, unexpected or different, and where.

    actual, expected   mappings by column, a pandas DataFrame, or a pyarrow Table
    key           columns that name a row: rows are paired by it, in any order
    ignore_order  without a key: the same rows, however often each, in any order
    tolerance     how far numbers may lie apart; two NaN are equal
    columns       only these are compared
    raises        AssertionError: with at most ten differences. ValueError: a key is there twice
    """
    left, right = _narrowed(actual, columns), _narrowed(expected, columns)
    names = [key] if isinstance(key, str) else list(key or ())
    if names:
        problems = _by_key(left, right, names, tolerance)
    elif ignore_order:
        problems = _unordered(left, right, tolerance)
    else:
        problems = _in_order(left, right, tolerance)
    if problems:
        head = f"{len(problems)} difference(s) between {len(left)} row(s) and {len(right)} expected:"
        more = [f"  and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise AssertionError("\n".join([head, *(f"  {line}" for line in problems[:_SHOWN]), *more]))


def _contract_of(
    contract: Contract | Mapping[str, Any] | str | Path, table: str | None
) -> tuple[Contract, Mapping[str, str]]:
    if isinstance(contract, Contract):
        return contract, {}
    from datops_assets.components import contract_checks  # noqa: F401 rules of plug-ins

    if isinstance(contract, Mapping):
        return Contract.model_validate(dict(contract)), {}
    from datops_assets.components.documents import read_documents

    file = Path(contract)
    tables = {
        name: spec
        for loaded in read_documents(file, file.parent)
        for name, spec in loaded.document.tables.items()
    }
    wanted = table or (next(iter(tables)) if len(tables) == 1 else None)
    if wanted not in tables:
        raise ValueError(f"{file} has no table {wanted!r}, expected one of: {', '.join(tables)}")
    spec = tables[wanted]
    if spec.contract is None:
        raise ValueError(f"{wanted} of {file} has no contract")
    return spec.contract, spec.rename


def _rows_of(rows: Any) -> list[Row]:
    if hasattr(rows, "to_dict") and hasattr(rows, "columns"):  # pandas
        return [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]
    if hasattr(rows, "to_pylist"):  # pyarrow
        return list(rows.to_pylist())
    return [dict(row) for row in rows]


def _narrowed(rows: Any, columns: Sequence[str] | None) -> list[dict[str, Any]]:
    return [
        {name: _plain(value) for name, value in row.items() if columns is None or name in columns}
        for row in _rows_of(rows)
    ]


def _plain(value: Any) -> Any:
    """A value as Python has it: pandas' and numpy's own scalars and missing values are none of a test's business."""
    if value is None or isinstance(value, str | bytes | bool | int | Decimal | list | dict):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if type(value).__name__ in ("NaTType", "NAType"):
        return None
    if hasattr(value, "to_pydatetime"):
        return value.to_pydatetime()
    return _plain(value.item()) if hasattr(value, "item") else value


def _equal(one: Any, other: Any, tolerance: float) -> bool:
    if tolerance and _is_number(one) and _is_number(other):
        return abs(Decimal(str(one)) - Decimal(str(other))) <= Decimal(str(tolerance))
    return bool(one == other)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _changes(one: Row, other: Row, tolerance: float) -> Iterable[str]:
    for name in dict.fromkeys([*other, *one]):
        if name not in one:
            yield f"{name} is missing, expected {other[name]!r}"
        elif name not in other:
            yield f"{name} is {one[name]!r}, expected no such column"
        elif not _equal(one[name], other[name], tolerance):
            yield f"{name} is {one[name]!r}, expected {other[name]!r}"


def _by_key(
    left: list[dict[str, Any]], right: list[dict[str, Any]], key: list[str], tolerance: float
) -> list[str]:
    one, other = _keyed(left, key, "actual"), _keyed(right, key, "expected")
    problems = []
    for values in dict.fromkeys([*other, *one]):
        label = ", ".join(f"{name}={value!r}" for name, value in zip(key, values, strict=True))
        if values not in one:
            problems.append(f"missing: {label}")
        elif values not in other:
            problems.append(f"unexpected: {label}")
        else:
            changed = list(_changes(one[values], other[values], tolerance))
            problems += [f"{label}: {'; '.join(changed)}"] if changed else []
    return problems


def _keyed(rows: list[dict[str, Any]], key: list[str], side: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    keyed: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        values = tuple(row.get(name) for name in key)
        if values in keyed:
            raise ValueError(f"the {side} rows have {', '.join(key)} = {values!r} twice; it is no key")
        keyed[values] = row
    return keyed


def _in_order(left: list[dict[str, Any]], right: list[dict[str, Any]], tolerance: float) -> list[str]:
    problems = []
    for place in range(max(len(left), len(right))):
        if place >= len(left):
            problems.append(f"missing: row {place}: {right[place]!r}")
        elif place >= len(right):
            problems.append(f"unexpected: row {place}: {left[place]!r}")
        else:
            changed = list(_changes(left[place], right[place], tolerance))
            problems += [f"row {place}: {'; '.join(changed)}"] if changed else []
    return problems


def _unordered(left: list[dict[str, Any]], right: list[dict[str, Any]], tolerance: float) -> list[str]:
    """Rows that have no partner; with a tolerance each takes the first that is near enough."""
    if not tolerance:
        one, other = Counter(map(_hashable, left)), Counter(map(_hashable, right))
        missing = [f"missing: {dict(row)!r}" for row in (other - one).elements()]
        return missing + [f"unexpected: {dict(row)!r}" for row in (one - other).elements()]
    unmatched, missing = list(left), []
    for row in right:
        partner = next((each for each in unmatched if not list(_changes(each, row, tolerance))), None)
        if partner is None:
            missing.append(f"missing: {row!r}")
        else:
            unmatched.remove(partner)
    return missing + [f"unexpected: {row!r}" for row in unmatched]


def _hashable(row: Row) -> tuple[tuple[str, Any], ...]:
    pairs = ((name, repr(value) if isinstance(value, list | dict) else value) for name, value in row.items())
    return tuple(sorted(pairs, key=lambda pair: pair[0]))
