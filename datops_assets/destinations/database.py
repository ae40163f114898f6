"""A database as a destination, by SQLAlchemy: rows and a marker in one transaction, so exactly once.

Readers of the target see the rows of before until the transaction commits. PostgreSQL takes the rows
by COPY, other dialects by inserts of batches.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import psycopg
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from datops_assets.destinations.destination import Delivered, Destination
from datops_assets.destinations.rows import Column, Rows
from datops_assets.errors import DatopsError, DestinationRefusedError, DestinationUnreachableError
from datops_assets.postgres.failpoints import hit

MARKERS = "datops_deliveries"
"""Our one table there: which delivery of which table was the last."""
_BATCH_ROWS = 2_000


@dataclass(frozen=True)
class DatabaseTarget:
    """One table there."""

    table: str
    mode: Literal["replace", "merge"] = "replace"
    """replace: it holds just these rows; merge: rows of a known key are renewed, others stay."""
    key: tuple[str, ...] = ()
    schema: str | None = None


class DatabaseDestination(Destination[DatabaseTarget]):
    """One database of another system."""

    def __init__(self, url: str | sa.URL, name: str, password: str | None = None) -> None:
        """Connect when something is delivered.

        name   of the export: markers of different ones do not meet
        """
        made = sa.make_url(url)
        if made.drivername in ("postgresql", "postgres"):
            made = made.set(drivername="postgresql+psycopg")
        self._url = made.set(password=password) if password else made
        self._name = name
        self._engine = sa.create_engine(self._url, poolclass=sa.NullPool, hide_parameters=True)

    @property
    def shown(self) -> str:
        """Where it is: no user, no password."""
        return f"{self._url.host or self._url.drivername}/{self._url.database or ''}"

    def deliver(self, rows: Rows, target: DatabaseTarget, marker: str) -> Delivered:
        """Replace or merge in one transaction, with the marker."""
        where = f"{self.shown}.{target.table}"
        _require_key(rows, target)
        try:
            table, markers = self._tables(rows, target)
            with self._engine.begin() as conn:
                if self._arrived(conn, markers, target, marker):
                    return Delivered(0, where, changed=False)
                count = self._write(conn, table, rows, target)
                hit("export.written")
                self._mark(conn, markers, target, marker, count)
            hit("export.committed")
        except (DBAPIError, psycopg.Error) as error:
            raise _explained(error, where) from None
        except SQLAlchemyError as error:
            raise DestinationRefusedError(f"{where}: {type(error).__name__}; it is as it was") from None
        return Delivered(count, where)

    def _tables(self, rows: Rows, target: DatabaseTarget) -> tuple[sa.Table, sa.Table]:
        """The table there, made where it is missing, and that of the markers."""
        metadata = sa.MetaData()
        columns = [
            sa.Column(column.name, _type(column), primary_key=column.name in target.key)
            for column in rows.columns
        ]
        table = sa.Table(target.table, metadata, *columns, schema=target.schema)
        markers = sa.Table(
            MARKERS,
            metadata,
            sa.Column("export", sa.String(100), primary_key=True),
            sa.Column("target", sa.String(200), primary_key=True),
            sa.Column("marker", sa.String(100), nullable=False),
            sa.Column("rows_delivered", sa.BigInteger, nullable=False),
        )
        metadata.create_all(self._engine, checkfirst=True)
        return table, markers

    def _arrived(self, conn: sa.Connection, markers: sa.Table, target: DatabaseTarget, marker: str) -> bool:
        found = conn.execute(sa.select(markers.c.marker).where(*self._of(markers, target)).with_for_update())
        return found.scalar() == marker

    def _mark(
        self, conn: sa.Connection, markers: sa.Table, target: DatabaseTarget, marker: str, count: int
    ) -> None:
        conn.execute(sa.delete(markers).where(*self._of(markers, target)))
        conn.execute(
            sa.insert(markers).values(
                export=self._name, target=_name(target), marker=marker, rows_delivered=count
            )
        )

    def _of(self, markers: sa.Table, target: DatabaseTarget) -> tuple[Any, ...]:
        return markers.c.export == self._name, markers.c.target == _name(target)

    def _write(self, conn: sa.Connection, table: sa.Table, rows: Rows, target: DatabaseTarget) -> int:
        if target.mode == "replace":
            conn.execute(sa.delete(table))
            return self._insert(conn, table, rows)
        arriving = sa.Table(
            f"datops_{target.table}"[:60],
            sa.MetaData(),
            *(sa.Column(column.name, column.type) for column in table.columns),
            prefixes=["TEMPORARY"],
        )
        arriving.create(conn)
        count = self._insert(conn, arriving, rows)
        same = [table.c[word] == arriving.c[word] for word in target.key]
        conn.execute(sa.delete(table).where(sa.exists().where(*same)))
        words = [column.name for column in table.columns]
        conn.execute(sa.insert(table).from_select(words, sa.select(*(arriving.c[word] for word in words))))
        arriving.drop(conn)
        return count

    def _insert(self, conn: sa.Connection, table: sa.Table, rows: Rows) -> int:
        if conn.dialect.name == "postgresql" and conn.dialect.driver == "psycopg":
            return self._copy(conn, table, rows)
        words = [column.name for column in rows.columns]
        count = 0
        for batch in rows.batches(_BATCH_ROWS):
            values = [dict(zip(words, map(_plain, row), strict=True)) for row in batch]
            conn.execute(sa.insert(table), values)
            count += len(values)
        return count

    def _copy(self, conn: sa.Connection, table: sa.Table, rows: Rows) -> int:
        words = ", ".join(conn.dialect.identifier_preparer.quote(column.name) for column in rows.columns)
        into = conn.dialect.identifier_preparer.format_table(table)
        driver: Any = conn.connection.dbapi_connection
        with driver.cursor().copy(f"copy {into} ({words}) from stdin (format csv, header)") as copy:
            for piece in rows.csv():
                copy.write(piece)
        return rows.count()

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()


def _explained(error: DBAPIError | psycopg.Error, where: str) -> DatopsError:
    """What to do about it; the driver's own text may hold cells and is not repeated."""
    of_driver = error.orig if isinstance(error, DBAPIError) else error
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    kind = type(of_driver).__name__
    if lost or isinstance(error, sa.exc.OperationalError | psycopg.OperationalError):
        return DestinationUnreachableError(
            f"{where} cannot be reached or lost the connection ({kind}); nothing was kept, try again"
        )
    return DestinationRefusedError(
        f"{where} refuses the rows ({kind}); it is as it was."
        " Compare its columns with those of the table that goes there"
    )


def _require_key(rows: Rows, target: DatabaseTarget) -> None:
    names = [column.name for column in rows.columns]
    missing = [word for word in target.key if word not in names]
    if missing:
        raise DestinationRefusedError(
            f"{target.table}: the key {missing[0]} is no column of the table, expected one of: {', '.join(names)}"
        )


def _name(target: DatabaseTarget) -> str:
    return f"{target.schema}.{target.table}" if target.schema else target.table


def _plain(value: Any) -> Any:
    """Values that every driver takes; json as its text."""
    import json
    from uuid import UUID

    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return str(value) if isinstance(value, UUID) else value


def _type(column: Column) -> sa.types.TypeEngine[Any]:
    digits = re.fullmatch(r"numeric\((\d+),(\d+)\)", column.type)
    if digits:
        return sa.Numeric(int(digits[1]), int(digits[2]))
    kinds: dict[str, sa.types.TypeEngine[Any]] = {
        "smallint": sa.SmallInteger(),
        "integer": sa.Integer(),
        "bigint": sa.BigInteger(),
        "real": sa.Float(),
        "double precision": sa.Double(),
        "numeric": sa.Numeric(38, 12),
        "boolean": sa.Boolean(),
        "date": sa.Date(),
        "time without time zone": sa.Time(),
        "timestamp without time zone": sa.DateTime(),
        "timestamp with time zone": sa.DateTime(timezone=True),
        "bytea": sa.LargeBinary(),
    }
    return kinds.get(column.type, sa.Text())
