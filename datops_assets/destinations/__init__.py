"""Tables of the warehouse outwards: to files, databases and APIs.

Belongs here: reading a table in bounded memory, and delivering it whole. Knows no Dagster, no document
and no environment; connections and secrets come as arguments. Drivers are imported when they are asked
for: a process that only loads definitions must not load them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from datops_assets.destinations.destination import Delivered, Destination

if TYPE_CHECKING:
    from datops_assets.destinations.database import DatabaseDestination, DatabaseTarget
    from datops_assets.destinations.files import FileDestination, FileTarget
    from datops_assets.destinations.rest import RestDestination, RestTarget
    from datops_assets.destinations.rows import Rows, open_rows

__all__ = [
    "DatabaseDestination",
    "DatabaseTarget",
    "Delivered",
    "Destination",
    "FileDestination",
    "FileTarget",
    "RestDestination",
    "RestTarget",
    "Rows",
    "open_rows",
]

_LATER = {
    "database": ["DatabaseDestination", "DatabaseTarget"],
    "files": ["FileDestination", "FileTarget"],
    "rest": ["RestDestination", "RestTarget"],
    "rows": ["Rows", "open_rows"],
}
_HOME = {name: module for module, names in _LATER.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
