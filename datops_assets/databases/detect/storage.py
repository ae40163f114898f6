"""What fills or stops a server in the end: age of transactions, the archive, slots. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from datops_assets.databases.detect.sample import Sample
from datops_assets.databases.detect.thresholds import Thresholds
from datops_assets.databases.findings import Finding


def judge_storage(sample: Sample, limit: Thresholds) -> Iterator[Finding]:
    """Findings about wraparound, the archive and replication slots."""
    for name, (share, of_limit) in sample.freeze.items():
        if share > limit.freeze_share:
            bad = share > limit.freeze_critical_share or of_limit > limit.freeze_critical_of_limit
            evidence: dict[str, Any] = {
                "of the age at which autovacuum acts": round(share, 2),
                "of the age at which PostgreSQL stops": round(of_limit, 3),
            }
            yield Finding("wraparound", name, "critical" if bad else "warning",
                          f"{name} has to be vacuumed against wraparound", evidence)  # fmt: skip
    if sample.archive_failing_s is not None:
        yield Finding("archive", "server", "critical", "the log is not archived any more; it will fill the disk",
                      {"failed seconds ago": round(sample.archive_failing_s)})  # fmt: skip
    for name, (followed, status, retained) in sample.slots.items():
        evidence = {"wal_status": status, "retained_bytes": retained, "followed": followed}
        if status in ("unreserved", "lost"):
            yield Finding("slot", name, "critical", f"slot {name} is {status}", evidence)
        elif retained > limit.retained_bytes:
            words = f"slot {name} keeps {retained / 1024**2:.0f} MiB of log"
            yield Finding("slot", name, "warning" if followed else "critical", words, evidence)
