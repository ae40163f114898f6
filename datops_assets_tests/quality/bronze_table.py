"""A bronze table and its loads, written by hand as ingestion would leave them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg import sql

from datops_assets.postgres.tables import table_id
from datops_assets.postgres.ulid import new_ulid
from datops_assets.quality import Contract, Judgement, judge_table

Row = Mapping[str, Any]


class BronzeTable:
    """One table of source `shop`; columns are delivered names with their bronze type."""

    def __init__(
        self, conn: psycopg.Connection[Any], name: str, columns: Mapping[str, str] | Sequence[str]
    ) -> None:
        self.conn, self.name = conn, name
        self.number = table_id(conn, "shop", name)
        self.table = sql.Identifier("bronze", f"shop_{name}")
        conn.execute(
            sql.SQL("create table {} (_load_id bigint not null, _row bigint not null)").format(self.table)
        )
        self.columns: list[str] = []
        types = columns if isinstance(columns, Mapping) else dict.fromkeys(columns, "text")
        for column, type_ in types.items():
            self.add_column(column, type_)

    def add_column(self, name: str, type_: str = "text") -> None:
        self.conn.execute(
            sql.SQL("alter table {} add column {} {}").format(
                self.table, sql.Identifier(name), sql.SQL(type_)
            )
        )
        self.columns.append(name)
        self.conn.execute(
            "insert into datops.columns (table_id, delivered, name, type, position, first_load_id)"
            " values (%s, %s, %s, %s, %s, 1)",
            (self.number, name, name, type_, len(self.columns)),
        )

    def load(
        self,
        *rows: Row | Sequence[Any],
        path: str = "a.csv",
        partition: str | None = None,
    ) -> int:
        """Enter one live load; a row is a mapping, or values in column order."""
        ulid = new_ulid()
        found = self.conn.execute(
            "insert into datops.loads (ulid, table_id, path, content_hash, format, state, batch, partition_key, rows)"
            " values (%s, %s, %s, %s, 'csv', 'loaded', %s, %s, %s) returning load_id",
            (ulid, self.number, path, ulid, ulid, partition, len(rows)),
        ).fetchone()
        assert found is not None
        load_id = int(found[0])
        for number, row in enumerate(rows, start=1):
            values = row if isinstance(row, Mapping) else dict(zip(self.columns, row, strict=False))
            names = ["_load_id", "_row", *values]
            self.conn.execute(
                sql.SQL("insert into {} ({}) values ({})").format(
                    self.table,
                    sql.SQL(", ").join(map(sql.Identifier, names)),
                    sql.SQL(", ").join([sql.Placeholder()] * len(names)),
                ),
                (load_id, number, *values.values()),
            )
        return load_id

    def set_state(self, load_id: int, state: str) -> None:
        self.conn.execute("update datops.loads set state = %s where load_id = %s", (state, load_id))

    def judge(self, contract: Contract, **more: Any) -> Judgement:
        return judge_table(self.conn, source="shop", table=self.name, contract=contract, **more)

    def silver(self, columns: str = "*") -> list[tuple[Any, ...]]:
        statement = sql.SQL("select {} from {} order by _load_id, _row").format(
            sql.SQL(columns), sql.Identifier("silver", f"shop_{self.name}")
        )
        return self.conn.execute(statement).fetchall()

    def waiting(self) -> list[tuple[Any, ...]]:
        """Load, row and reasons of what the contract refused."""
        statement = sql.SQL("select _load_id, _row, reasons from {} where stage = 'silver' order by 1, 2")
        return self.conn.execute(
            statement.format(sql.Identifier("quarantine", f"shop_{self.name}"))
        ).fetchall()


def contract(**parts: Any) -> Contract:
    """A contract as a document would give it."""
    return Contract.model_validate(parts)
