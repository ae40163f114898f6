"""Contracts and their verdicts: from bronze to silver, and the quarantine between them.

Knows no Dagster, no document and no environment; connections come as arguments.

What reads a contract is imported at once, what talks to a server when it is asked for: a
process that only loads definitions must not load the driver.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from datops_assets.quality.column_rule import ColumnRule
from datops_assets.quality.contract import ColumnSchema, Contract
from datops_assets.quality.contract_rules import (
    CompareRule,
    ExpressionRule,
    ForeignKeyRule,
    FreshnessRule,
    HoldsRule,
    OwnCheckRule,
    ReferringRule,
    RowCountRule,
    TableRule,
    UniqueRule,
    VolumeRule,
)
from datops_assets.quality.contract_tests import ContractTest, ContractTestResult, run_contract_tests
from datops_assets.quality.own_check import OwnCheck, literal

if TYPE_CHECKING:
    from datops_assets.quality.delivered import column_origins
    from datops_assets.quality.judged import CheckResult, Judgement, JudgementBlockedError, quality_score
    from datops_assets.quality.judging import judge_partitions, judge_table, rebuild_table
    from datops_assets.quality.mirror import Mirror, MirrorSubject, judge_mirror
    from datops_assets.quality.planning import JudgementPlan, plan_judgement
    from datops_assets.quality.quarantine import (
        Reason,
        Replayed,
        WaitingRecord,
        count_waiting,
        drop_quarantined,
        list_quarantine,
        replay_quarantine,
        show_quarantine,
    )
    from datops_assets.quality.trial import Trial, test_contract

__all__ = [
    "CheckResult",
    "ColumnRule",
    "ColumnSchema",
    "CompareRule",
    "Contract",
    "ContractTest",
    "ContractTestResult",
    "ExpressionRule",
    "ForeignKeyRule",
    "FreshnessRule",
    "HoldsRule",
    "Judgement",
    "JudgementBlockedError",
    "JudgementPlan",
    "Mirror",
    "MirrorSubject",
    "OwnCheck",
    "OwnCheckRule",
    "Reason",
    "ReferringRule",
    "Replayed",
    "RowCountRule",
    "TableRule",
    "Trial",
    "UniqueRule",
    "VolumeRule",
    "WaitingRecord",
    "column_origins",
    "count_waiting",
    "drop_quarantined",
    "judge_mirror",
    "judge_partitions",
    "judge_table",
    "list_quarantine",
    "literal",
    "plan_judgement",
    "quality_score",
    "rebuild_table",
    "replay_quarantine",
    "run_contract_tests",
    "show_quarantine",
    "test_contract",
]

_LATER = {
    "delivered": ["column_origins"],
    "judged": ["CheckResult", "Judgement", "JudgementBlockedError", "quality_score"],
    "judging": ["judge_partitions", "judge_table", "rebuild_table"],
    "mirror": ["Mirror", "MirrorSubject", "judge_mirror"],
    "planning": ["JudgementPlan", "plan_judgement"],
    "quarantine": [
        "Reason",
        "Replayed",
        "WaitingRecord",
        "count_waiting",
        "drop_quarantined",
        "list_quarantine",
        "replay_quarantine",
        "show_quarantine",
    ],
    "trial": ["Trial", "test_contract"],
}
_HOME = {name: module for module, names in _LATER.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
