"""What is unusual or dangerous on a server, from what PostgreSQL shows without an extension, and more with one.

`take_sample` reads; everything behind it is pure: a sample, the one before, what is usual. A part that
could not be looked at is named in `Sample.skipped`, and never counts as fine.
"""

from datops_assets.databases.detect.judge import judge
from datops_assets.databases.detect.sample import Sample, Size, TableCounts, take_sample
from datops_assets.databases.detect.server_log import Burst, LogSeen
from datops_assets.databases.detect.thresholds import Bounds, Thresholds
from datops_assets.databases.detect.usual import Baseline, Familiar, learn

__all__ = [
    "Baseline",
    "Bounds",
    "Burst",
    "Familiar",
    "LogSeen",
    "Sample",
    "Size",
    "TableCounts",
    "Thresholds",
    "judge",
    "learn",
    "take_sample",
]
