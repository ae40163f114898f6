"""Files, databases and APIs into bronze, exactly once.

Belongs here: what a source promises, how each format is read without losing a byte, the load
catalogue. Does not: types and verdicts (quality), Dagster (components), the environment (config).
"""

from datops_assets.ingestion.after_load import AfterLoad
from datops_assets.ingestion.bronze import BronzeColumn
from datops_assets.ingestion.catalogue import LoadEntry
from datops_assets.ingestion.files import FileSource
from datops_assets.ingestion.history import list_loads, refused_loads, reload_load, show_load, undo_load
from datops_assets.ingestion.job import Progress
from datops_assets.ingestion.landing import LandingFinding, landing_findings
from datops_assets.ingestion.load import LoadResult, TableLoaded, load_table, plan_load
from datops_assets.ingestion.plan import PlannedLoad
from datops_assets.ingestion.retention import Keep, PastLoad, plan_prune, prune_loads
from datops_assets.ingestion.schema_policy import accept_columns, list_frozen_out, said_difference
from datops_assets.ingestion.source import (
    ArrowDelivery,
    CopyDelivery,
    Delivery,
    Reachability,
    Reached,
    Source,
    TextDelivery,
    Unit,
)
from datops_assets.ingestion.tables import (
    CsvOptions,
    ExcelOptions,
    FilePartition,
    FileTable,
    FixedColumn,
    FixedOptions,
    Landing,
    SourceTable,
)

__all__ = [
    "AfterLoad",
    "ArrowDelivery",
    "BronzeColumn",
    "CopyDelivery",
    "CsvOptions",
    "Delivery",
    "ExcelOptions",
    "FilePartition",
    "FileSource",
    "FileTable",
    "FixedColumn",
    "FixedOptions",
    "Keep",
    "Landing",
    "LandingFinding",
    "LoadEntry",
    "LoadResult",
    "PastLoad",
    "PlannedLoad",
    "Progress",
    "Reachability",
    "Reached",
    "Source",
    "SourceTable",
    "TableLoaded",
    "TextDelivery",
    "Unit",
    "accept_columns",
    "landing_findings",
    "list_frozen_out",
    "list_loads",
    "load_table",
    "plan_load",
    "plan_prune",
    "prune_loads",
    "refused_loads",
    "reload_load",
    "said_difference",
    "show_load",
    "undo_load",
]
