"""Unit tests of a contract: rows as they would be delivered, and what the contract is to say of each.

Judged in Python, without a warehouse; the same verdicts as there (trial).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from datops_assets.postgres.names import contract_name
from datops_assets.quality.contract import Contract


class ContractTest(BaseModel):
    """Rows by delivered names, and the verdict each of them is to get."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, description="What is promised, as a sentence.")
    given: dict[str, Any] | list[dict[str, Any]] = Field(
        description="A row, or several with the same verdict. A name that is left out is null."
    )
    expect: Literal["passes"] | list[str] = Field(
        description="`passes`, or all the reasons the row is to have, those of warnings too."
    )
    path: str = Field("", description="Path below the source, for columns taken `from: filename`.")

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows, also where it is one."""
        return [self.given] if isinstance(self.given, dict) else self.given


@dataclass(frozen=True)
class ContractTestResult:
    """How one test went. `problems` is empty where it holds."""

    name: str
    problems: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether every row got its verdict."""
        return not self.problems


def run_contract_tests(
    contract: Contract, tests: Sequence[ContractTest], rename: Mapping[str, str] | None = None
) -> list[ContractTestResult]:
    """Judge the rows of each test; never raises for a test that does not hold."""
    return [ContractTestResult(test.name, tuple(_problems(contract, test, rename or {}))) for test in tests]


def as_delivered(value: Any) -> str | None:
    """A value of a document or of Python as the text a file would hold; None is null."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    return str(value)


def _problems(contract: Contract, test: ContractTest, rename: Mapping[str, str]) -> list[str]:
    from datops_assets.quality.trial import (
        test_contract,
    )  # loads the driver, which who reads documents must not

    rows = [{name: as_delivered(value) for name, value in row.items()} for row in test.rows]
    if not rows:
        return ["no row is given, expected one or several"]
    problems = []
    if not contract.closed:
        known = {*contract.columns, *contract.ignore}
        names = dict.fromkeys(name for row in rows for name in row)
        problems = [
            f"{name!r} becomes no column of the contract, expected one of: {', '.join(contract.columns)}"
            for name in names
            if contract_name(name, rename) not in known
        ]
    for place, row in enumerate(rows, start=1):
        trial = test_contract(contract, [row], rename=rename, path=test.path)
        found = trial.verdicts.get(0, [])
        where = f"row {place}: " if len(rows) > 1 else ""
        if test.expect == "passes":
            if trial.failing:
                problems.append(f"{where}is set aside ({'; '.join(found)}), expected to pass")
            continue
        missing = [reason for reason in test.expect if reason not in found]
        more = [reason for reason in found if reason not in test.expect]
        if missing:
            problems.append(
                f"{where}lacks the reason {'; '.join(missing)}{_because(missing, trial.not_judged)}"
            )
        if more:
            problems.append(f"{where}also has the reason {'; '.join(more)}")
        if not test.expect and not found:
            problems.append(f"{where}passes, and no reason is expected; write `expect: passes`")
    return problems


def _because(missing: Sequence[str], not_judged: Sequence[str]) -> str:
    names = [sentence.partition(":")[0] for sentence in not_judged]
    hit = [name for name in names if any(reason.startswith(name) for reason in missing)]
    return f" ({', '.join(hit)} can only be judged in the warehouse)" if hit else ""
