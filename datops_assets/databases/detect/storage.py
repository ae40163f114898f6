"""What fills or stops a server in the end: age of transactions, the archive, slots, standbys, the log. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from datops_assets.databases.detect.sample import Sample
from datops_assets.databases.detect.thresholds import Thresholds
from datops_assets.databases.findings import Finding


def judge_storage(sample: Sample, limit: Thresholds) -> Iterator[Finding]:
    """Findings about wraparound, the archive, slots, standbys that fall behind, and the log's size."""
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
    yield from _replicas(sample, limit)
    if sample.log_size is not None:
        size, kept = sample.log_size
        if size > max(limit.log_share * kept, limit.retained_bytes):
            bad = size > limit.log_critical_share * kept
            yield Finding("log_size", "server", "critical" if bad else "warning",
                          f"the log takes {size / 1024**2:.0f} MiB, {kept / 1024**2:.0f} are meant",
                          {"bytes": int(size), "meant": int(kept)})  # fmt: skip


def _replicas(sample: Sample, limit: Thresholds) -> Iterator[Finding]:
    """Who follows and is behind, by what it has not got and by how old that is."""
    for name, (behind_bytes, behind_s) in sample.replicas.items():
        late = behind_s or 0.0
        if behind_bytes <= limit.retained_bytes and late <= limit.replica_warning_s:
            continue
        yield Finding("replication_lag", name, "critical" if late > limit.replica_critical_s else "warning",
                      f"{name} is {behind_bytes / 1024**2:.0f} MiB and {late:.0f} s behind",
                      {"bytes": int(behind_bytes), "seconds": round(late, 1)})  # fmt: skip
