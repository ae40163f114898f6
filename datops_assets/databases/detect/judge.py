"""What there is to say about a sample, beside the one before and what is usual. Pure."""

from __future__ import annotations

from datops_assets.databases.detect.changes import judge_changes
from datops_assets.databases.detect.load import judge_load
from datops_assets.databases.detect.logins import judge_logins
from datops_assets.databases.detect.sample import Sample
from datops_assets.databases.detect.storage import judge_storage
from datops_assets.databases.detect.thresholds import Bounds
from datops_assets.databases.detect.usual import Baselines, Familiar
from datops_assets.databases.findings import Finding


def judge(
    sample: Sample,
    before: Sample | None,
    baselines: Baselines,
    familiar: Familiar,
    bounds: Bounds,
    exporters: frozenset[str],
) -> list[Finding]:
    """Everything there is to say about a sample; each (kind, subject) once, the worst of it.

    exporters    roles that may copy whole tables out
    """
    found = [
        *judge_load(sample, before, baselines, bounds, exporters),
        *judge_logins(sample, familiar, bounds),
        *judge_storage(sample, bounds.server),
    ]
    if before is not None:
        found += judge_changes(sample, before, bounds)
    found.sort(key=lambda one: ("info", "warning", "critical").index(one.severity))
    return list({(one.kind, one.subject): one for one in found}.values())
