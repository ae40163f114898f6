"""A contract against sample rows, without a warehouse."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from datops_assets.postgres.names import contract_name
from datops_assets.quality.contract import Contract
from datops_assets.quality.expressions_python import OnlyInWarehouseError
from datops_assets.quality.patterns import read_pattern
from datops_assets.quality.python_checks import PythonCheck, TextRow, clean_row, python_checks
from datops_assets.quality.row_checks import NOT_IN_CONTRACT, RowCheck


@dataclass
class Trial:
    """Verdicts on sample rows.

    failing      rows that would be set aside; warned: rows that pass with a warning
    verdicts     reasons of each row that has any, by its position in the sample
    not_judged   what this cannot judge: rules beyond one row, a team's own schema
    """

    rows: int = 0
    failing: int = 0
    warned: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    verdicts: dict[int, list[str]] = field(default_factory=dict)
    not_judged: list[str] = field(default_factory=list)


def test_contract(
    contract: Contract, rows: Iterable[TextRow], *, rename: Mapping[str, str] | None = None, path: str = ""
) -> Trial:
    """Judge sample rows by the row rules of a contract: the verdicts the warehouse would give.

    rows    delivered texts by delivered name; JSON scalars as their text, a missing name is null
    path    the sample's path below the source's root, for columns taken `from: filename`
    """
    checks = python_checks(contract)
    trial = Trial(not_judged=list(checks.not_judged))
    if contract.pandera:
        trial.not_judged.append(f"pandera: {contract.pandera} is run on typed batches in the warehouse")
    judged = list(checks.checks)
    for position, row in enumerate(rows):
        texts = clean_row(contract, _by_contract_name(contract, row, rename or {}, path))
        broken = list(_broken(judged, texts, trial.not_judged))
        unknown = _unknown_reasons(contract, row, rename or {}) if contract.closed else []
        reasons = [*(rule.reason for rule in broken), *unknown]
        trial.rows += 1
        if reasons:
            trial.verdicts[position] = reasons
            refused = bool(unknown) or any(rule.refuses for rule in broken)
            trial.failing += refused
            trial.warned += not refused
        for reason in reasons:
            trial.reasons[reason] = trial.reasons.get(reason, 0) + 1
    return trial


# pytest would take the name for a test where it is imported.
test_contract.__test__ = False  # type: ignore[attr-defined]


def _broken(judged: list[PythonCheck], texts: TextRow, not_judged: list[str]) -> Iterator[RowCheck]:
    """Yield the rules a row breaks; one that only now shows what it needs is said and left out from here on."""
    for check in tuple(judged):
        try:
            if check.breaks(texts):
                yield check.rule
        except OnlyInWarehouseError as error:
            judged.remove(check)
            not_judged.append(f"{check.rule.name}: {error}")


def _unknown_reasons(contract: Contract, row: TextRow, rename: Mapping[str, str]) -> list[str]:
    """A reason for each value in a delivered column that a closed contract does not know."""
    known = {*contract.columns, *contract.ignore}
    return [
        f"{delivered}: {NOT_IN_CONTRACT}"
        for delivered, text in row.items()
        if text is not None and contract_name(delivered, rename) not in known
    ]


def _by_contract_name(
    contract: Contract, row: TextRow, rename: Mapping[str, str], path: str
) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for delivered, text in row.items():
        name = contract_name(delivered, rename)
        if found.get(name) is None:
            found[name] = text
    for name, rule in contract.columns.items():
        if rule.from_ and rule.pattern is not None:
            found[name] = read_pattern(rule.pattern).first_group(path)
    return found
