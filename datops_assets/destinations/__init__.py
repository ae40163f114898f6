"""Tables of the warehouse outwards: to files, databases and APIs.

Belongs here: reading a table in bounded memory, and delivering it whole. Knows no Dagster, no document
and no environment; connections and secrets come as arguments.
"""

from datops_assets.destinations.database import DatabaseDestination, DatabaseTarget
from datops_assets.destinations.destination import Delivered, Destination
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
