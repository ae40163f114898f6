"""What a judgement is about and what comes out of it: values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from psycopg import sql

from datops_assets.errors import BlockedError
from datops_assets.postgres.identifiers import bronze_table, quarantine_table, silver_table, warehouse_name
from datops_assets.quality.contract import Contract, Disposition
from datops_assets.quality.contract_parts import Severity

Kind = Literal["load", "partition", "replay", "rebuild"]
State = Literal["judged", "blocked", "unchanged"]

_REASONS_SHOWN = 3
_WEIGHTS = {"warn": 1, "error": 3, "block": 5}


@dataclass(frozen=True)
class Subject:
    """One table of one source with the contract that judges it."""

    source: str
    table: str
    contract: Contract
    rename: Mapping[str, str] = field(default_factory=dict)
    disposition: Disposition = "append"

    @cached_property
    def version(self) -> str:
        """The version of the contract as it applies to this table."""
        return self.contract.version(rename=self.rename)

    @property
    def label(self) -> str:
        """The name people use."""
        return f"{self.source}.{self.table}"

    @property
    def bronze(self) -> sql.Identifier:
        """The table of delivered values."""
        return bronze_table(self.source, self.table)

    @property
    def silver(self) -> sql.Identifier:
        """The table of judged rows."""
        return silver_table(self.source, self.table)

    @property
    def silver_name(self) -> str:
        """Its name without the schema."""
        return warehouse_name(self.source, self.table)

    @property
    def quarantine(self) -> sql.Identifier:
        """The table of refused rows."""
        return quarantine_table(self.source, self.table)


@dataclass(frozen=True)
class CheckResult:
    """One expectation of one judgement. `detail` never holds a cell value."""

    name: str
    column: str | None
    severity: Severity
    rows_judged: int
    rows_failed: int
    passed: bool
    detail: Mapping[str, object] | None = None

    @property
    def said(self) -> str | None:
        """Why it fails, where there is more to say than a count."""
        return str(self.detail["said"]) if self.detail and "said" in self.detail else None


@dataclass(frozen=True)
class Judgement:
    """What one call judged, and what silver gained and lost by it.

    state         unchanged: there was nothing to judge, and nothing was written; `checks` are those
                  of the last judgement, which still hold
    rows_total    rows in silver afterwards
    score         see `quality_score`; None when nothing was judged
    reasons       quarantined rows by reason; a row counts under each of its reasons
    """

    label: str
    kind: Kind
    state: State
    contract_version: str
    why: str = ""
    judgement_id: int | None = None
    ulid: str | None = None
    loads: tuple[int, ...] = ()
    rows_judged: int = 0
    rows_passed: int = 0
    rows_quarantined: int = 0
    rows_inserted: int = 0
    rows_updated: int = 0
    rows_deleted: int = 0
    rows_total: int = 0
    score: float | None = None
    checks: tuple[CheckResult, ...] = ()
    reasons: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0


class JudgementBlockedError(BlockedError):
    """A blocking check failed; silver is as it was. `judgement` holds every check's result."""

    def __init__(self, judgement: Judgement) -> None:
        self.judgement = judgement
        failed = [check for check in judgement.checks if check.severity == "block" and not check.passed]
        counts = "; ".join(_failure(check) for check in failed)
        said = dict.fromkeys(check.said for check in judgement.checks if check.column and check.said)
        most = sorted(judgement.reasons.items(), key=lambda item: (-item[1], item[0]))[:_REASONS_SHOWN]
        reasons = ", ".join(f"{reason} ({rows})" for reason, rows in most)
        because = "".join(f" {sentence}." for sentence in said) + (
            f" Most rows: {reasons}." if reasons else ""
        )
        super().__init__(
            f"{judgement.label}: {counts}. Silver is as it was.{because} Nothing of it is in the quarantine; see:"
            f" datops contract test {judgement.label}, then correct the files or the contract and run again"
        )


def _failure(check: CheckResult) -> str:
    """A check of the whole table says its own sentence; one of rows counts them."""
    if check.column is None and check.said:
        return f"{check.name}: {check.said}"
    return f"{check.name} fails in {check.rows_failed} of {check.rows_judged} rows"


def threshold_kept(rows_failed: int, rows_judged: int, max_rows: int | None, max_ratio: float | None) -> bool:
    """Whether a check holds. Without a threshold no row may fail; with both, both must hold."""
    if max_rows is None and max_ratio is None:
        return rows_failed == 0
    rows_kept = max_rows is None or rows_failed <= max_rows
    ratio_kept = max_ratio is None or rows_failed <= max_ratio * rows_judged
    return rows_kept and ratio_kept


def quality_score(checks: Sequence[CheckResult]) -> float | None:
    """The quality score of one judgement, from 0 to 100; None when no row was judged.

    100 × Σ w·(1 − failed/judged) / Σ w over all checks, with w = 1 for a check that warns,
    3 for one that sets rows aside, 5 for one that blocks. A check of the whole table, such
    as row_count, counts as one row. A pipeline's score is the mean of its tables' newest
    scores, weighted by rows judged.
    """
    counted = [check for check in checks if check.rows_judged > 0]
    if not counted:
        return None
    total = sum(_WEIGHTS[check.severity] for check in counted)
    kept = sum(
        _WEIGHTS[check.severity] * (1 - min(check.rows_failed / check.rows_judged, 1)) for check in counted
    )
    return round(100 * kept / total, 4)
