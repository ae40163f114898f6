"""A pipeline document made of what a database says of its tables: complete, and ready to run unedited.

Belongs here: the words of the document. Does not: asking the database (ingestion/database/describe).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from datops_assets.components.texts import is_name
from datops_assets.errors import DeclarationError
from datops_assets.postgres.names import contract_name

if TYPE_CHECKING:
    from datops_assets.ingestion.database.describe import DescribedColumn, DescribedTable, Reference

Place = tuple[str | None, str]
"""Schema and name of a table."""
FILE = "pipeline.yaml"
_DEFS = "type: datops_assets.components.Pipeline\nattributes: {document: pipeline.yaml}\n"
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*\Z")
_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})


def scaffold(
    tables: Iterable[DescribedTable],
    *,
    name: str,
    url: str,
    password_env: str | None,
    team: str = "unassigned",
    include: str | None = None,
) -> str:
    """Write the document.

    url        as it is to stand there; no password
    include    glob on `schema.table` or `table`; only those
    raises     DeclarationError: no table is left
    """
    chosen = [table for table in tables if include is None or _matches(table, include)]
    if not chosen:
        found = "no table of that pattern" if include else "no table that this user sees"
        raise DeclarationError([f"there is {found}, expected at least one; see --include"])
    names, followed = _names(chosen), _without_cycles(chosen)
    lines = [
        f"# Made by `datops pipeline create` from {len(chosen)} table(s) of the database; edit it as you like.",
        f"pipeline: {name}",
        f"team: {_scalar(team)}",
        "source:",
        "  type: database",
        f"  url: {_scalar(url)}",
        *([f"  password_env: {password_env}"] if password_env else []),
        "tables:",
    ]
    for table in chosen:
        lines += _table(table, names, followed)
    return "\n".join(lines) + "\n"


def from_database(
    url: str,
    project_root: Path,
    *,
    name: str | None = None,
    password_env: str | None = None,
    schema: str | None = None,
    include: str | None = None,
    team: str = "unassigned",
) -> tuple[str, str]:
    """Ask a database and write the document; returns the pipeline's name and the text.

    url        as it is to stand in the document: ${NAME} is a variable, no password
    raises     DeclarationError, SourceUnreachableError, SourceRefusedError
    """
    from pydantic import ValidationError

    from datops_assets.components.sources.database import DatabaseSource, address_of
    from datops_assets.ingestion.database.describe import describe

    try:
        source = DatabaseSource(type="database", url=url, password_env=password_env)
    except ValidationError as error:
        raise DeclarationError(
            [f"--from: {item['msg'].removeprefix('Value error, ')}" for item in error.errors()]
        ) from None
    address = address_of(source, project_root)
    pipeline = name or pipeline_name(address.url.database)
    if not is_name(pipeline):
        raise DeclarationError(
            [f"--name {pipeline!r}: expected lower case letters, digits and _ (a letter first)"]
        )
    tables = describe(address, schema)
    document = scaffold(tables, name=pipeline, url=url, password_env=password_env, team=team, include=include)
    return pipeline, document


def write(folder: Path, document: str) -> list[Path]:
    """Write the two files of a definition; raises DeclarationError where one is there already."""
    files = {folder / "defs.yaml": _DEFS, folder / FILE: document}
    for path in files:
        if path.exists():
            raise DeclarationError([f"{path} is there already, expected a new folder: give --name or --out"])
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        path.write_text(content, encoding="utf-8")
    return list(files)


def pipeline_name(database: str | None) -> str:
    """A name for the pipeline of a database."""
    stem = re.sub(r"[^a-z0-9]+", "_", Path(database or "").stem.lower()).strip("_")[:40]
    return stem if is_name(stem) else "source"


def _matches(table: DescribedTable, pattern: str) -> bool:
    return fnmatchcase(table.relation, pattern) or fnmatchcase(f"{table.schema}.{table.relation}", pattern)


def _names(tables: list[DescribedTable]) -> dict[Place, str]:
    """A name for each table: its own, with the schema before it where two share one."""
    taken: set[str] = set()
    names = {}
    for table in tables:
        plain = _snake(table.relation)
        candidate = plain if plain not in taken else _snake(f"{table.schema}_{table.relation}")
        number = 2
        while candidate in taken:
            candidate, number = f"{plain[:36]}_{number}", number + 1
        taken.add(candidate)
        names[table.schema, table.relation] = candidate
    return names


def _snake(text: str) -> str:
    name = re.sub(r"_+", "_", contract_name(text, {}))[:40].strip("_")
    return name if is_name(name) else f"t_{name}"[:40].strip("_")


def _table(table: DescribedTable, names: dict[Place, str], followed: set[Reference]) -> list[str]:
    columns = _columns(table)
    where = f"{table.schema}.{table.relation}" if table.schema else table.relation
    renamed = [c for c in table.columns if contract_name(c.name, {}) != columns[c.name]]
    lines = [f"  {names[table.schema, table.relation]}:", f"    table: {_scalar(where)}"]
    lines += [
        f"    # cursor: {_scalar(column.name)}   # reads only what is new, if it grows with every change"
        for column in table.columns
        if column.is_cursor_candidate
    ]
    if renamed:
        pairs = ", ".join(f"{_quoted(column.name)}: {columns[column.name]}" for column in renamed)
        lines.append(f"    rename: {{{pairs}}}")
    lines.append("    contract:")
    if table.key:
        lines.append(f"      key: [{', '.join(columns[name] for name in table.key)}]")
    lines.append("      columns:")
    lines += [f"        {columns[column.name]}: {_rule(column)}" for column in table.columns]
    rules = _rules(table, columns, names, followed)
    return lines + (["      rules:", *rules] if rules else [])


def _columns(table: DescribedTable) -> dict[str, str]:
    """The contract's name of each column."""
    named: dict[str, str] = {}
    for column in table.columns:
        plain = contract_name(column.name, {})
        candidate = plain if re.fullmatch(r"[a-z][a-z0-9_]{0,62}", plain) else f"c_{plain}"[:60].rstrip("_")
        number = 2
        while candidate in named.values():
            candidate, number = f"{plain[:58]}_{number}", number + 1
        named[column.name] = candidate
    return named


def _rule(column: DescribedColumn) -> str:
    parts = [f"type: {_quoted(column.type) if '(' in column.type else column.type}"]
    if column.required:
        parts.append("required: true")
    if column.longest:
        parts.append(f"length: {{max: {column.longest}}}")
    return "{" + ", ".join(parts) + "}"


def _without_cycles(tables: list[DescribedTable]) -> set[Reference]:
    """The references that no other one leads back from: silver is judged referenced tables first."""
    upstream: dict[Place, set[Place]] = {}

    def leads_to(start: Place, end: Place) -> bool:
        waiting, seen = [start], set()
        while waiting:
            place = waiting.pop()
            if place == end:
                return True
            if place not in seen:
                seen.add(place)
                waiting += upstream.get(place, ())
        return False

    kept = set()
    for table in tables:
        here = (table.schema, table.relation)
        for reference in table.references:
            there = (reference.schema or table.schema, reference.relation)
            if not leads_to(there, here):
                upstream.setdefault(here, set()).add(there)
                kept.add(reference)
    return kept


def _rules(
    table: DescribedTable, columns: dict[str, str], names: dict[Place, str], followed: set[Reference]
) -> list[str]:
    """Foreign keys to tables of the document."""
    lines = []
    for reference in table.references:
        place = (reference.schema or table.schema, reference.relation)
        if place not in names or reference not in followed:
            continue
        own = ", ".join(columns[name] for name in reference.columns)
        referred = ", ".join(contract_name(name, {}) for name in reference.referred)
        lines.append(f"        - {{foreign_key: [{own}], references: {names[place]}, columns: [{referred}]}}")
    return lines


def _scalar(text: str) -> str:
    return text if _PLAIN.match(text) and text.lower() not in _WORDS else _quoted(text)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
