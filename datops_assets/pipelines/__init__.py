"""Pipelines in Python: the same document as the YAML, built step by step, checked, run and cancelled.

    pipeline = Pipeline("store", team="commerce", source=DataSource(ConnectorType.FILES, path="landing"))
    pipeline.add(Task("orders", files="orders/*.csv").column("order_id", "bigint", required=True).key("order_id"))
    pipeline.add(Transformation("large", of="orders").filter("total > 100"))
    pipeline.run()

Thin: a pipeline here is the document's values, and all that reads, checks or runs it is what the commands use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from datops_assets.pipelines.building import DataSource, Pipeline, Task, Transformation
from datops_assets.pipelines.running import Execution, ExecutionContext, ExecutionError
from datops_assets.pipelines.words import (
    ConnectorType,
    FileFormat,
    LoadMode,
    RunState,
    SchemaPolicy,
    Severity,
)

if TYPE_CHECKING:
    from datops_assets.components.runner import PipelineRun
    from datops_assets.components.sources.kind import SourceKind
    from datops_assets.ingestion import Source
    from datops_assets.transform import Step

__all__ = [
    "ConnectorType",
    "DataSource",
    "Execution",
    "ExecutionContext",
    "ExecutionError",
    "FileFormat",
    "LoadMode",
    "Pipeline",
    "PipelineRun",
    "RunState",
    "SchemaPolicy",
    "Severity",
    "Source",
    "SourceKind",
    "Step",
    "Task",
    "Transformation",
]

_LATER = {
    "PipelineRun": "datops_assets.components.runner",
    "Source": "datops_assets.ingestion",
    "SourceKind": "datops_assets.components.sources.kind",
    "Step": "datops_assets.transform",
}
"""What plug-ins derive from and what a run returns; looked up when asked for, Dagster costs 1.3 s."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
