"""Declared transformations: what they read, in which order they run, what is wrong with them, their statements.

Belongs here: documents held against the domain's steps; no Dagster. Does not: the assets (transforms.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from datops_assets.transform import (
    Columns,
    Engine,
    Statement,
    StepError,
    build_statement,
    inputs_of,
    read_kind,
    silver_table,
)

if TYPE_CHECKING:
    import psycopg

    from datops_assets.components.document import PipelineDocument

Reference = tuple[str, str]
"""(pipeline, table or transformation)."""
Problem = tuple[tuple[str | int, ...], str]
"""Where below the document, and the sentence."""
Documents = Mapping[str, "PipelineDocument"]


def references(document: PipelineDocument, name: str) -> dict[str, Reference]:
    """What a transformation reads, by the words it uses."""
    transform = document.transforms[name]
    found: dict[str, Reference] = {}
    for word in inputs_of(transform.from_, transform.steps):
        source, _, table = word.rpartition(".")
        found[word] = (source or document.pipeline, table)
    return found


def transform_order(document: PipelineDocument) -> list[str]:
    """Names of the transformations, each behind those that it reads."""
    ordered: list[str] = []

    def place(name: str) -> None:
        if name in ordered:
            return
        for source, table in references(document, name).values():
            if source == document.pipeline and table in document.transforms and table != name:
                place(table)
        ordered.append(name)

    for name in document.transforms:
        place(name)
    return ordered


def downstream(document: PipelineDocument, tables: Iterable[str]) -> list[str]:
    """The transformations that read any of these tables of the document, by whatever way, in order."""
    reached = set(tables)
    found = []
    for name in transform_order(document):
        read = {table for source, table in references(document, name).values() if source == document.pipeline}
        if read & reached:
            reached.add(name)
            found.append(name)
    return found


def declared_version(document: PipelineDocument, name: str) -> str:
    """Changes when what the table holds may change: its input, its steps, the columns it reads."""
    transform = document.transforms[name].model_dump(mode="json", by_alias=True, include={"from_", "steps"})
    text = json.dumps(transform, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def problems_of(document: PipelineDocument, others: Documents | None = None) -> list[Problem]:
    """What is wrong with the document's transformations.

    others    the project's documents by name; None: tables of other documents are not looked at
    """
    problems: list[Problem] = []
    for name in document.transforms:
        if name in document.tables:
            problems.append((("transforms", name), "is a table of this document too, expected another name"))
    if problems:
        return problems
    if circle := _circle(document, others or {}):
        return [(("transforms", circle), "its inputs lead back to itself, expected no cycle")]
    known: dict[Reference, Columns | None] = {}
    for name in transform_order(document):
        problem = _problem(document, name, others, known)
        if problem is not None:
            problems.append(problem)
    return problems


def _problem(
    document: PipelineDocument,
    name: str,
    others: Documents | None,
    known: dict[Reference, Columns | None],
) -> Problem | None:
    here = document.pipeline, name
    known[here] = None
    columns: dict[str, Columns] = {}
    for word, reference in references(document, name).items():
        try:
            found = _columns(document, reference, others, known)
        except LookupError as error:
            return (("transforms", name, *_where(document, name, word)), f"{word}: {error}")
        if found is None:  # of a document that is not at hand, or of one that is wrong itself
            return None
        columns[word] = found
    try:
        known[here] = _statement(document, name, columns, "postgres").columns
    except StepError as error:
        return (("transforms", name, *error.where), str(error))
    return None


def _where(document: PipelineDocument, name: str, word: str) -> tuple[str | int, ...]:
    transform = document.transforms[name]
    if word == transform.from_:
        return ("from",)
    index = next(i for i, step in enumerate(transform.steps) if word in step.step.inputs())
    return ("steps", index, transform.steps[index].word)


def _columns(
    document: PipelineDocument,
    reference: Reference,
    others: Documents | None,
    known: dict[Reference, Columns | None],
) -> Columns | None:
    """Columns of a declared table; None where they cannot be known. Raises LookupError: there is no such table."""
    source, table = reference
    if reference in known:
        return known[reference]
    owner = document if source == document.pipeline else (others or {}).get(source)
    if owner is None:
        if others is None:
            return None
        raise LookupError(f"there is no pipeline {source}, expected one of: {', '.join(others)}")
    if table in owner.transforms:
        if owner is not document:
            _problem(owner, table, others, known)
        return known.get(reference)
    if table not in owner.tables:
        raise LookupError(
            f"there is no such table, expected one of: {', '.join((*owner.tables, *owner.transforms))}"
        )
    columns = contract_columns(owner, table)
    if columns is None:
        raise LookupError("it has no contract, so it has no silver; add `contract:`")
    return columns


def contract_columns(document: PipelineDocument, table: str) -> Columns | None:
    """Columns of a silver table as its contract has them; None without a contract."""
    contract = document.tables[table].contract
    if contract is None:
        return None
    return {name: read_kind(rule.kind.name) for name, rule in contract.columns.items()}


def _circle(document: PipelineDocument, others: Documents) -> str | None:
    """A transformation of the document that reads itself by way of others."""
    owners = {**others, document.pipeline: document}
    for name in document.transforms:
        seen: set[Reference] = set()
        waiting = list(references(document, name).values())
        while waiting:
            source, table = waiting.pop()
            if (source, table) == (document.pipeline, name):
                return name
            if (source, table) in seen or source not in owners or table not in owners[source].transforms:
                continue
            seen.add((source, table))
            waiting += references(owners[source], table).values()
    return None


def _statement(
    document: PipelineDocument, name: str, columns: Mapping[str, Columns], engine: Engine
) -> Statement:
    transform = document.transforms[name]
    tables = {
        word: silver_table(*reference, columns[word])
        for word, reference in references(document, name).items()
    }
    return build_statement(tables[transform.from_], transform.steps, tables, engine)


def declared_statement(
    document: PipelineDocument, name: str, others: Documents, engine: Engine = "postgres"
) -> Statement:
    """The statement of a transformation, from documents alone.

    raises    LookupError: a table that it reads is not declared
              StepError: a step does not fit
    """
    known: dict[Reference, Columns | None] = {}
    columns: dict[str, Columns] = {}
    for before in transform_order(document):
        if before != name:
            _problem(document, before, others, known)
    known.pop((document.pipeline, name), None)
    for word, reference in references(document, name).items():
        found = _columns(document, reference, others, known)
        if found is None:
            raise LookupError(f"the columns of {word} are not known; see `datops validate`")
        columns[word] = found
    return _statement(document, name, columns, engine)


def statement_here(conn: psycopg.Connection[Any], document: PipelineDocument, name: str) -> Statement:
    """The statement of a transformation, its inputs as they are in the warehouse.

    raises    StepError: a step does not fit them
              TransformError: an input is not there
    """
    return _statement(document, name, columns_here(conn, document, name), "postgres")


def columns_here(conn: psycopg.Connection[Any], document: PipelineDocument, name: str) -> dict[str, Columns]:
    """Columns of what a transformation reads: a table of its own document by contract, others as they are.

    raises    TransformError: an input is not there
    """
    from datops_assets.transform import TransformError, read_columns

    columns: dict[str, Columns] = {}
    for word, (source, table) in references(document, name).items():
        own = document.tables.get(table) if source == document.pipeline else None
        declared = contract_columns(document, table) if own is not None else None
        found = declared or read_columns(conn, f"{source}_{table}")
        if not found:
            raise TransformError(
                f"{document.pipeline}.{name} reads {source}.{table}, and silver.{source}_{table} is not there;"
                f" run it first: datops pipeline run {source}"
            )
        columns[word] = found
    return columns
