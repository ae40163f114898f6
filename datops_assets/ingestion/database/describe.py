"""What a database says of its own tables: types, keys, references. A first contract is made of it.

Belongs here: looking, through SQLAlchemy, whatever the database. Does not: the document that is
written of it (components/scaffold).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from datops_assets.errors import SourceRefusedError, SourceUnreachableError
from datops_assets.ingestion.database.address import Address, missing_driver

_SYSTEM_SCHEMAS = frozenset({"information_schema", "pg_catalog", "mysql", "performance_schema", "sys"})
_MOST_LENGTH = 10_000


@dataclass(frozen=True)
class DescribedColumn:
    """One column, in a contract's words."""

    name: str
    type: str
    declared: str
    required: bool
    longest: int | None = None
    """Most characters of a text."""
    is_cursor_candidate: bool = False


@dataclass(frozen=True)
class Reference:
    """A foreign key."""

    columns: tuple[str, ...]
    schema: str | None
    relation: str
    referred: tuple[str, ...]


@dataclass(frozen=True)
class DescribedTable:
    """One table."""

    schema: str | None
    relation: str
    columns: tuple[DescribedColumn, ...]
    key: tuple[str, ...] = ()
    references: tuple[Reference, ...] = field(default_factory=tuple)


def describe(address: Address, schema: str | None = None) -> list[DescribedTable]:
    """Describe every table that this user sees, by name.

    schema     only of this one; None: of all but the system's own
    raises     SourceUnreachableError, SourceRefusedError
    """
    url = address.url
    if address.by_copy:
        url = url.set(drivername="postgresql+psycopg")
    elif url.drivername in ("mysql", "mariadb"):
        url = url.set(drivername=f"{url.drivername}+pymysql")
    try:
        engine = sa.create_engine(url, poolclass=sa.NullPool, hide_parameters=True)
    except (exc.NoSuchModuleError, ImportError) as error:
        raise missing_driver(address, error) from None
    try:
        with engine.connect() as conn:
            return _describe(sa.inspect(conn), address, schema)
    except exc.OperationalError as error:
        # Not chained: a driver's text may hold parts of the URL.
        said = str(error.orig).lower()
        if any(sign in said for sign in ("password", "denied", "does not exist", "unknown database")):
            raise SourceRefusedError(
                f"the database at {address.shown} refuses the user or the password, or is not there;"
                " correct the URL or the variable of --password-env"
            ) from None
        raise SourceUnreachableError(
            f"the database at {address.shown} does not answer; check the URL, then run again"
        ) from None


def _describe(inspector: Any, address: Address, schema: str | None) -> list[DescribedTable]:
    default = inspector.default_schema_name
    schemas: Sequence[str | None] = [schema] if schema else _schemas(inspector, address, default)
    tables = []
    for name in schemas:
        partitions = _partitions(inspector, address, name)
        for relation in sorted(set(inspector.get_table_names(schema=name)) - partitions):
            tables.append(_table(inspector, name, relation, address.kind))
    return tables


def _partitions(inspector: Any, address: Address, schema: str | None) -> set[str]:
    """Tables that are parts of another one, which has their rows too."""
    if not address.by_copy:
        return set()
    query = sa.text(
        "select c.relname from pg_class c where c.relispartition and c.relnamespace = cast(:schema as regnamespace)"
    )
    with inspector.engine.connect() as conn:
        quoted = conn.dialect.identifier_preparer.quote(schema or "public")
        return set(conn.execute(query, {"schema": quoted}).scalars())


def _schemas(inspector: Any, address: Address, default: str | None) -> list[str | None]:
    if address.kind not in ("postgresql", "postgres", "mssql"):
        return [None]  # the database of the URL
    names = [name for name in inspector.get_schema_names() if name not in _SYSTEM_SCHEMAS]
    return sorted((name for name in names if not name.startswith("pg_")), key=lambda n: (n != default, n))


def _table(inspector: Any, schema: str | None, relation: str, kind: str) -> DescribedTable:
    key = tuple(inspector.get_pk_constraint(relation, schema=schema)["constrained_columns"] or ())
    references = tuple(
        Reference(
            tuple(found["constrained_columns"]),
            found["referred_schema"],
            found["referred_table"],
            tuple(found["referred_columns"]),
        )
        for found in inspector.get_foreign_keys(relation, schema=schema)
    )
    columns = tuple(_column(found, key, kind) for found in inspector.get_columns(relation, schema=schema))
    return DescribedTable(schema, relation, columns, key, references)


def _column(found: Any, key: tuple[str, ...], kind: str) -> DescribedColumn:
    type_ = found["type"]
    word = contract_type(type_, kind)
    required = not found["nullable"] or found["name"] in key
    longest = getattr(type_, "length", None) if word == "text" else None
    if isinstance(type_, sa.Enum):
        longest = None
    grows = word in ("timestamp", "timestamptz") or (
        word in ("integer", "bigint") and key == (found["name"],) and found.get("autoincrement") is True
    )
    return DescribedColumn(
        found["name"],
        word,
        str(type_) if not isinstance(type_, sa.types.NullType) else "unknown",
        required,
        longest if longest and longest <= _MOST_LENGTH else None,
        grows,
    )


def contract_type(type_: sa.types.TypeEngine[Any], kind: str) -> str:
    """The contract's word for a type of SQLAlchemy; `text` where there is none that holds every value.

    promise    one database's `decimal(10,2)` and another's `numeric(10,2)` are one word
    """
    if isinstance(type_, sa.Boolean):
        return "boolean"
    if isinstance(type_, sa.Float):
        return "double"
    if isinstance(type_, sa.Numeric):
        if type_.precision is None:
            return "numeric"
        return f"numeric({type_.precision},{type_.scale or 0})"
    if isinstance(type_, sa.Integer):
        return _whole(type_, kind)
    if isinstance(type_, sa.DateTime):
        zoned = type_.timezone or (kind in ("mysql", "mariadb") and type_.__visit_name__ == "TIMESTAMP")
        return "timestamptz" if zoned else "timestamp"
    for known, word in (
        (sa.Date, "date"), (sa.Time, "time"), (sa.Uuid, "uuid"), (sa.JSON, "json"), (sa.LargeBinary, "bytea"),
    ):  # fmt: skip
        if isinstance(type_, known):
            return "text" if word == "time" and getattr(type_, "timezone", False) else word
    if type_.__visit_name__ in ("BINARY", "VARBINARY"):
        return "bytea"
    return "text"


def _whole(type_: sa.types.TypeEngine[Any], kind: str) -> str:
    name, unsigned = type_.__visit_name__.upper(), getattr(type_, "unsigned", False)
    if kind == "sqlite":
        return "bigint"  # its integers all have eight bytes
    if isinstance(type_, sa.SmallInteger) or name in ("TINYINT", "YEAR"):
        return "integer" if unsigned and name == "SMALLINT" else "smallint"
    if isinstance(type_, sa.BigInteger):
        return "numeric" if unsigned else "bigint"
    return "bigint" if unsigned and name != "MEDIUMINT" else "integer"
