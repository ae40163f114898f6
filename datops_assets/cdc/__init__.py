"""Change data capture: a source's log into bronze, each change once and to the byte.

Belongs here: PostgreSQL's logical replication, the snapshot it begins with, the change log and the
mirror; the same by queries, for any database (query). Does not: contracts (quality), Dagster (components),
the environment (config).
"""

from datops_assets.cdc.capture import Capture, Copied, Standing
from datops_assets.cdc.changed_keys import FollowedMirror
from datops_assets.cdc.drain import Drained, drain
from datops_assets.cdc.figures import keep_figures
from datops_assets.cdc.history import Told, tell_history
from datops_assets.cdc.log_capture import LogCapture
from datops_assets.cdc.log_retention import forget_changes
from datops_assets.cdc.preflight import Finding, preflight
from datops_assets.cdc.snapshot import Snapshot, take_snapshot
from datops_assets.cdc.status import SlotStatus, has_news, read_slot
from datops_assets.cdc.streaming import Progress, stream_changes
from datops_assets.cdc.streams import ChangeStream, StreamedTable, StreamEntry, find_stream, lease
from datops_assets.cdc.view import renew_view

__all__ = [
    "Capture",
    "ChangeStream",
    "Copied",
    "Drained",
    "Finding",
    "FollowedMirror",
    "LogCapture",
    "Progress",
    "SlotStatus",
    "Snapshot",
    "Standing",
    "StreamEntry",
    "StreamedTable",
    "Told",
    "drain",
    "find_stream",
    "forget_changes",
    "has_news",
    "keep_figures",
    "lease",
    "preflight",
    "read_slot",
    "renew_view",
    "stream_changes",
    "take_snapshot",
    "tell_history",
]
