"""Steps on real tables: rows go in, the statement runs on PostgreSQL, rows come out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from psycopg import sql
from psycopg.sql import SQL

from datops_assets.transform import StepDocument, build_statement, build_table, read_columns, silver_table

Row = tuple[Any, ...]


class Silver:
    """Silver tables of a source `t`, and transformations of them."""

    def __init__(self, conn) -> None:
        self.conn = conn
        self.columns: dict[str, dict[str, str]] = {}

    def put(self, name: str, columns: Mapping[str, str], rows: Iterable[Row]) -> None:
        """Make silver.t_<name> of these rows."""
        table = sql.Identifier("silver", f"t_{name}")
        self.conn.execute(SQL("drop table if exists {}").format(table))
        shape = [SQL("{} {}").format(sql.Identifier(word), SQL(kind)) for word, kind in columns.items()]
        self.conn.execute(SQL("create table {} ({})").format(table, SQL(", ").join(shape)))
        with self.conn.cursor().copy(SQL("copy {} from stdin").format(table)) as copy:
            for row in rows:
                copy.write_row(row)
        self.columns[name] = dict(columns)

    def statement(self, *steps: Mapping[str, Any], first: str = "rows", engine: str = "postgres"):
        """What the steps are on PostgreSQL or Spark."""
        tables = {name: silver_table("t", name, columns) for name, columns in self.columns.items()}
        documents = [StepDocument.model_validate(step) for step in steps]
        return build_statement(tables[first], documents, tables, engine)

    def rows(self, *steps: Mapping[str, Any], first: str = "rows") -> list[Row]:
        """Rows of the steps on PostgreSQL, in no order."""
        return self.conn.execute(SQL(self.statement(*steps, first=first).text())).fetchall()

    def types(self, *steps: Mapping[str, Any]) -> tuple[dict[str, str | None], dict[str, str]]:
        """Types as they are inferred, and as the server has them."""
        statement = self.statement(*steps)
        self.conn.execute(SQL("drop table if exists silver.t_typed"))
        self.conn.execute(SQL("create table silver.t_typed as {} limit 0").format(SQL(statement.text())))
        return dict(statement.columns), read_columns(self.conn, "t_typed")

    def build(self, *steps: Mapping[str, Any], name: str = "made"):
        """Build silver.t_<name> as a run does."""
        from datops_assets.quality.swap import swap_in

        return build_table(self.conn, "t", name, self.statement(*steps), version="1", swap=swap_in)


@pytest.fixture
def silver(warehouse) -> Silver:
    """No table yet."""
    return Silver(warehouse.conn)
