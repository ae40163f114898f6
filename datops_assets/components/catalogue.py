"""The one way a step, a sensor or a command reaches the warehouse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, LiteralString

from datops_assets.config.settings import Settings, read_settings

if TYPE_CHECKING:
    import psycopg

    from datops_assets.resources.warehouse import Warehouse


LONGEST_WAIT = "15min"
"""For another run of the same table, or anybody else's lock; then the step fails with a sentence."""
_LIMIT: LiteralString = (
    "select set_config('lock_timeout', %s, false) where current_setting('lock_timeout') = '0'"
)


@dataclass(frozen=True)
class Catalogue:
    """An open warehouse whose catalogue is up to date."""

    settings: Settings
    warehouse: Warehouse
    conn: psycopg.Connection


@contextmanager
def open_catalogue(project_root: Path | None = None) -> Iterator[Catalogue]:
    """Start or reach the warehouse, bring the catalogue up to date, close the connection at the end.

    raises    WarehouseError, WarehouseUnreachableError: one sentence and the next command
    """
    from datops_assets.postgres.migrations import upgrade
    from datops_assets.resources.server_errors import server_errors
    from datops_assets.resources.warehouse import open_warehouse

    settings = read_settings(project_root)
    warehouse = open_warehouse(settings)
    with warehouse.connect() as conn, server_errors(warehouse.address):
        # A lock that somebody forgot would hold a run for ever; what the database says for itself stands.
        conn.execute(_LIMIT, (LONGEST_WAIT,))
        upgrade(conn)
        yield Catalogue(settings, warehouse, conn)
