"""Names of warehouse tables. Values only: no connection, no quoting by hand."""

from __future__ import annotations

from psycopg import sql

from datops_assets.postgres.names import warehouse_name

__all__ = ["bronze_table", "quarantine_table", "row_sequence", "silver_table", "warehouse_name"]


def bronze_table(source: str, table: str) -> sql.Identifier:
    """The table of delivered values."""
    return sql.Identifier("bronze", warehouse_name(source, table))


def silver_table(source: str, table: str) -> sql.Identifier:
    """The table of typed and checked rows."""
    return sql.Identifier("silver", warehouse_name(source, table))


def quarantine_table(source: str, table: str) -> sql.Identifier:
    """The table of records that wait for a decision."""
    return sql.Identifier("quarantine", warehouse_name(source, table))


def row_sequence(source: str, table: str) -> sql.Identifier:
    """The sequence that numbers the records of one file."""
    return sql.Identifier("bronze", warehouse_name(source, table) + "__row")
