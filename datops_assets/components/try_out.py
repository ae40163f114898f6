"""Trying a pipeline out: the first records of each file, the real way, beside the real tables.

Everything runs in a scratch database on the warehouse's server, with the same code that loads and
judges for real; what came of it is then copied into a schema of the warehouse for looking at.

A foreign key is judged against the other table's real silver as it stands, because a sample of
that table would call good records orphans; where it has none yet, and for row counts, which a
sample says nothing of, the rule is left out and the result says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg import sql

from datops_assets.components.catalogue import Catalogue, open_catalogue
from datops_assets.components.document import PipelineDocument
from datops_assets.components.runner import OnStep, PipelineRun, require_tables, table_runs
from datops_assets.components.sources import declared_table, open_source
from datops_assets.errors import DatopsError, DeclarationError, WarehouseError
from datops_assets.postgres.identifiers import bronze_table, quarantine_table, silver_table

if TYPE_CHECKING:
    import psycopg

    from datops_assets.quality import Contract, ReferringRule
    from datops_assets.resources.warehouse import Warehouse

_PLAIN_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_TAKEN_NAMES = frozenset({"bronze", "silver", "gold", "quarantine", "datops", "public", "information_schema"})
_OURS = "Results of try-outs (datops pipeline run --into); the next one replaces them."
_LAYERS = {"bronze": bronze_table, "silver": silver_table, "quarantine": quarantine_table}


def try_out(
    document: PipelineDocument,
    project_root: Path,
    *,
    tables: Sequence[str],
    rows: int,
    schema: str,
    on_step: OnStep | None = None,
) -> PipelineRun:
    """Load and judge the first records of every file, and leave the real tables and their catalogue alone.

    tables   only these; none: all
    rows     records of each file
    schema   receives bronze_<table>, silver_<table> and quarantine_<table>, all in one moment
    raises   DeclarationError: an unknown table, or a schema that is not ours to fill
             WarehouseError: the role may not create a database or the schema
    promise  the scratch database is dropped in every case; one of a killed process by the next try-out
    """
    from datops_assets.postgres.ulid import new_ulid
    from datops_assets.resources.scratch_database import scratch_database

    require_tables(document, tables)
    _require_plain(schema)
    names = [name for name in document.load_order() if not tables or name in tables]
    with open_catalogue(project_root) as real:
        _require_ours(real.conn, schema)
        with scratch_database(real.warehouse) as database, _opened(real, database) as scratch:
            attempt = _Attempt(document, names, rows, f"try-out-{new_ulid()}", on_step)
            attempt.load(scratch)
            attempt.judge(scratch, real)
            _hand_over(scratch, real, document.pipeline, names, schema)
            results = table_runs(scratch, document, attempt.run_id, names)
    attempt.notes.append(
        f"look at: {schema}.bronze_<table>, {schema}.silver_<table>, {schema}.quarantine_<table>"
    )
    return PipelineRun(
        document.pipeline, attempt.run_id, not attempt.problems, 0.0, results, attempt.problems, attempt.notes
    )


@contextmanager
def _opened(real: Catalogue, database: Warehouse) -> Iterator[Catalogue]:
    from datops_assets.postgres.migrations import upgrade

    with database.connect() as conn:
        upgrade(conn)
        yield Catalogue(real.settings, database, conn)


@dataclass
class _Attempt:
    """One try-out: what to do, and what went wrong so far."""

    document: PipelineDocument
    names: list[str]
    rows: int
    run_id: str
    on_step: OnStep | None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def load(self, scratch: Catalogue) -> None:
        """Load the first records of every file."""
        from datops_assets.ingestion import load_table
        from datops_assets.ingestion.sampled import Sampled

        for name in self.names:
            with self._step("bronze", name):
                root = scratch.settings.project_root
                table = declared_table(self.document, name, root)
                with open_source(self.document, root) as source:
                    loaded = load_table(
                        scratch.conn,
                        Sampled(source, table, self.rows),
                        table,
                        batch=self.run_id,
                        run_id=self.run_id,
                        adbc_url=scratch.warehouse.url,
                    )
                    found = source.check(table)
                self.problems += [f"{result.path}: {result.error}" for result in loaded.failed]
                self.problems += [loaded.pending] if loaded.pending else []
                if not loaded.results:
                    self.notes.append(f"{table.label}: nothing is ready: {found.message}")

    def judge(self, scratch: Catalogue, real: Catalogue) -> None:
        """Judge what was loaded; referring tables first, while the others stand for the real ones."""
        from datops_assets.quality import judge_table

        with_contract = [name for name in self.names if self.document.tables[name].contract is not None]
        contracts = {name: self._judgeable(name, real) for name in with_contract}
        _lend_silver(self.document, contracts, scratch, real)
        for name in reversed(with_contract):
            table = self.document.tables[name]
            with self._step("silver", name):
                lent = silver_table(self.document.pipeline, name)
                scratch.conn.execute(sql.SQL("drop table if exists {}").format(lent))
                judge_table(
                    scratch.conn,
                    source=self.document.pipeline,
                    table=name,
                    contract=contracts[name],
                    rename=table.rename,
                    disposition=table.disposition,
                    run_id=self.run_id,
                )

    @contextmanager
    def _step(self, layer: str, name: str) -> Iterator[None]:
        """Show a step, and let what goes wrong in it not stop the others."""
        step = f"{layer}__{self.document.pipeline}__{name}"
        if self.on_step:
            self.on_step(step, False)
        try:
            yield
        except DatopsError as error:
            self.problems.append(str(error))
        if self.on_step:
            self.on_step(step, True)

    def _judgeable(self, name: str, real: Catalogue) -> Contract:
        """The contract without the rules that a sample cannot be judged by."""
        from datops_assets.quality import ReferringRule, TableRule

        contract = self.document.tables[name].contract
        assert contract is not None
        kept = []
        for rule in contract.rules:
            why = ""
            if isinstance(rule, TableRule):
                why = "a sample says nothing of it"
            elif isinstance(rule, ReferringRule):
                why = _why_not_comparable(self.document, rule, real)
            if why:
                self.notes.append(f"not judged: {self.document.pipeline}.{name}: {rule.check_name()}: {why}")
            else:
                kept.append(rule)
        return contract.model_copy(update={"rules": kept})


def _referred(document: PipelineDocument, rule: ReferringRule) -> tuple[str, str]:
    source, _, table = rule.references.rpartition(".")
    return source or document.pipeline, table


def _why_not_comparable(document: PipelineDocument, rule: ReferringRule, real: Catalogue) -> str:
    """Why there is nothing to hold such a rule against; '' where there is."""
    source, table = _referred(document, rule)
    types = _column_types(real.conn, silver_table(source, table))
    if not types:
        return f"{source}.{table} has no silver yet"
    missing = [column for column in rule.their_columns() if column not in types]
    return f"the silver of {source}.{table} has no column {', '.join(missing)} yet" if missing else ""


def _lend_silver(
    document: PipelineDocument, contracts: dict[str, Contract], scratch: Catalogue, real: Catalogue
) -> None:
    """Copy the columns that rules look at from real silver tables into the scratch database."""
    from datops_assets.quality import ReferringRule

    wanted: dict[tuple[str, str], list[str]] = {}
    for contract in contracts.values():
        for rule in contract.rules:
            if isinstance(rule, ReferringRule):
                wanted.setdefault(_referred(document, rule), []).extend(rule.their_columns())
    for (source, table), columns in wanted.items():
        name = silver_table(source, table)
        _copy_table(real.conn, name, scratch.conn, name, list(dict.fromkeys(columns)))


def _hand_over(scratch: Catalogue, real: Catalogue, source: str, names: Sequence[str], schema: str) -> None:
    """Put the results where they can be looked at; readers see all of them or those of before."""
    import psycopg

    try:
        with real.conn.transaction():
            real.conn.execute(sql.SQL("create schema if not exists {}").format(sql.Identifier(schema)))
            real.conn.execute(
                sql.SQL("comment on schema {} is {}").format(sql.Identifier(schema), sql.Literal(_OURS))
            )
            for name in names:
                for layer, table_of in _LAYERS.items():
                    result = sql.Identifier(schema, f"{layer}_{name}")
                    real.conn.execute(sql.SQL("drop table if exists {}").format(result))
                    _copy_table(scratch.conn, table_of(source, name), real.conn, result)
    except psycopg.errors.InsufficientPrivilege:
        raise WarehouseError(
            f"the role that datops uses may not fill the schema {schema!r}; let an administrator run:"
            f" grant create on database {real.warehouse.dbname} to <that role>"
        ) from None
    except psycopg.errors.DependentObjectsStillExist:
        raise WarehouseError(
            f"a view or the like depends on the last try-out in schema {schema!r}; drop it, or choose another --into"
        ) from None


def _copy_table(
    from_conn: psycopg.Connection,
    from_table: sql.Identifier,
    to_conn: psycopg.Connection,
    to_table: sql.Identifier,
    columns: Sequence[str] | None = None,
) -> None:
    """Make a table of the same columns (or some of them) and copy the rows; nothing where there is none."""
    types = _column_types(from_conn, from_table)
    if not types:
        return
    chosen = columns or list(types)
    # Type names come from PostgreSQL's own catalogue, already quoted.
    defined = [sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(types[name])) for name in chosen]
    to_conn.execute(sql.SQL("create table {} ({})").format(to_table, sql.SQL(", ").join(defined)))
    names = sql.SQL(", ").join(map(sql.Identifier, chosen))
    read = sql.SQL("copy {} ({}) to stdout (format binary)").format(from_table, names)
    write = sql.SQL("copy {} ({}) from stdin (format binary)").format(to_table, names)
    with from_conn.cursor().copy(read) as rows, to_conn.cursor().copy(write) as into:
        for part in rows:
            into.write(part)


def _column_types(conn: psycopg.Connection, table: sql.Identifier) -> dict[str, str]:
    """Columns of a table with their types as PostgreSQL prints them; empty where there is none."""
    rows = conn.execute(
        "select attname, format_type(atttypid, atttypmod) from pg_attribute"
        " where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped order by attnum",
        (table.as_string(conn),),
    )
    return dict(rows.fetchall())


def _require_plain(schema: str) -> None:
    if not _PLAIN_NAME.fullmatch(schema):
        raise DeclarationError(
            [f"--into {schema!r} is not a plain name, expected lower case letters, digits and _"]
        )
    if schema in _TAKEN_NAMES or schema.startswith("pg_"):
        raise DeclarationError(
            [f"--into {schema!r} is in use for other things, expected a name such as try_out"]
        )


def _require_ours(conn: psycopg.Connection, schema: str) -> None:
    found = conn.execute(
        "select obj_description(oid, 'pg_namespace') from pg_namespace where nspname = %s", (schema,)
    ).fetchone()
    if found is not None and found[0] != _OURS:
        raise DeclarationError(
            [f"--into {schema!r}: the schema is there and no try-out made it, expected one of its own"]
        )
