"""Which bronze columns a contract column is made of, and as what type they were delivered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql
from psycopg.sql import SQL, Composable

from datops_assets.postgres.identifiers import warehouse_name
from datops_assets.postgres.names import contract_name
from datops_assets.quality.contract import Contract

_OWN = frozenset({"_load_id", "_row"})
_NAMES_SHOWN = 12


@dataclass(frozen=True)
class BronzeColumn:
    """One delivered column. `type` is PostgreSQL's name for it in bronze."""

    delivered: str
    name: str
    type: str
    in_more: bool = False

    @property
    def value(self) -> Composable:
        """The value as bronze holds it, in a query where bronze is called b."""
        if not self.in_more:
            return sql.Identifier("b", self.name)
        # `_more` has names as delivered, one maybe twice; the operator takes the last, as the file's reader did.
        return SQL("b._more -> {}").format(sql.Literal(self.delivered))

    @property
    def is_json(self) -> bool:
        """Whether it was delivered as JSON (CSV fields in `_more` are JSON strings)."""
        return self.in_more or self.type in ("json", "jsonb")

    @property
    def is_array(self) -> bool:
        """Whether it was delivered as an array of PostgreSQL."""
        return not self.in_more and self.type.endswith("[]")

    @property
    def may_be_unreadable(self) -> bool:
        """Whether text taken out of it may be none; what jsonb could not decode it never took."""
        return self.is_json and (self.in_more or self.type != "jsonb")

    @property
    def is_json_null(self) -> Composable:
        """A condition: the value is JSON's null."""
        return SQL("{}({}) = 'null'").format(
            SQL("json_typeof" if self.may_be_unreadable else "jsonb_typeof"), self.value
        )


@dataclass(frozen=True)
class Delivered:
    """The bronze table as it is now. `exists` is false before the first load."""

    exists: bool
    columns: tuple[BronzeColumn, ...] = ()
    physical: tuple[str, ...] = ()
    """Names of the columns bronze really has, ours left out."""
    types: Mapping[str, str] = field(default_factory=dict)
    """PostgreSQL's name of the type of each of them."""

    def made_of(self, contract: Contract, rename: Mapping[str, str]) -> dict[str, list[BronzeColumn]]:
        """For each contract column those delivered under its name so far, in the order they appeared."""
        found: dict[str, list[BronzeColumn]] = {name: [] for name in contract.columns}
        for column in self.columns:
            name = contract_name(column.delivered, rename)
            if name in found and contract.columns[name].from_ is None:
                found[name].append(column)
        return found


def not_delivered(name: str, delivered: Iterable[str]) -> str:
    """What to say of a contract column that no file has, where the contract demands it."""
    names = list(delivered)
    shown = ", ".join(names[:_NAMES_SHOWN]) + (", …" if len(names) > _NAMES_SHOWN else "")
    return f"no delivered column is `{name}`; the files have: {shown}; see `rename:`"


def read_delivered(conn: psycopg.Connection[Any], source: str, table: str) -> Delivered:
    """Read names and types from the catalogue and from PostgreSQL."""
    attributes = conn.execute(
        "select a.attname, format_type(a.atttypid, a.atttypmod) from pg_attribute a"
        " where a.attrelid = to_regclass(format('bronze.%%I', %s::text)) and a.attnum > 0 and not"
        " a.attisdropped order by a.attnum",
        (warehouse_name(source, table),),
    ).fetchall()
    types = {name: type_ for name, type_ in attributes if name not in _OWN}
    named = conn.execute(
        "select c.delivered, c.name, c.type, c.in_more from datops.columns c join datops.tables t using (table_id)"
        " where t.source = %s and t.name = %s and c.occurrence = 1 order by c.position",
        (source, table),
    ).fetchall()
    columns = tuple(
        BronzeColumn(delivered, name, types.get(name, type_), in_more)
        for delivered, name, type_, in_more in named
        if in_more or name in types
    )
    return Delivered(bool(attributes), columns, tuple(types), types)


def column_origins(
    conn: psycopg.Connection[Any], source: str, table: str, contract: Contract, rename: Mapping[str, str]
) -> dict[str, list[str]]:
    """The bronze columns that each silver column is made of; empty for one taken from the file's path."""
    made_of = read_delivered(conn, source, table).made_of(contract, rename)
    return {name: [column.name for column in columns] for name, columns in made_of.items()}
