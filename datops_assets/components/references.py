"""References of contracts from one document to another: that they lead to a contract, and not back to where they began.

Belongs here: pipelines and streams side by side, for their silver tables are one warehouse's. Does not: the rules
themselves (quality), references of transformations (transform_statements.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from datops_assets.quality import ReferringRule

if TYPE_CHECKING:
    from datops_assets.components.document import JudgedTable
    from datops_assets.components.documents import LoadedDocument
    from datops_assets.components.streams.document import LoadedStream
    from datops_assets.components.yaml_source import YamlSource

Table = tuple[str, str]
"""Pipeline or stream, and the table's name in it."""


def check_references(pipelines: Sequence[LoadedDocument], streams: Sequence[LoadedStream]) -> list[str]:
    """What is wrong with the references of all contracts, as `file:line: what, what was expected`.

    Of two documents of one name the first counts; that there are two is said elsewhere.
    """
    documents: dict[str, tuple[YamlSource, Mapping[str, JudgedTable]]] = {}
    for name, source, tables in _all(pipelines, streams):
        documents.setdefault(name, (source, tables))
    known = {name: tables for name, (_, tables) in documents.items()}
    problems = [
        problem
        for name, source, tables in _all(pipelines, streams)
        for problem in _dangling(name, source, tables, known)
    ]
    return problems or _circle(documents)


def _all(
    pipelines: Sequence[LoadedDocument], streams: Sequence[LoadedStream]
) -> Iterator[tuple[str, YamlSource, Mapping[str, JudgedTable]]]:
    for pipeline in pipelines:
        yield pipeline.document.pipeline, pipeline.source, pipeline.document.tables
    for stream in streams:
        yield stream.document.stream, stream.source, stream.document.tables


def _dangling(
    name: str,
    source: YamlSource,
    tables: Mapping[str, JudgedTable],
    known: Mapping[str, Mapping[str, JudgedTable]],
) -> list[str]:
    """References that lead nowhere."""
    problems: list[str] = []
    for table, spec in tables.items():
        for index, rule in enumerate(spec.contract.rules if spec.contract else ()):
            if not isinstance(rule, ReferringRule):
                continue
            other, _, referred = rule.references.rpartition(".")
            found = (known.get(other, {}) if other else tables).get(referred)
            said = [f"references {rule.references}, expected a table with a contract"]
            if found is not None and found.contract is not None:
                columns = list(found.contract.columns)
                said = [
                    f"{rule.references} has no column {column}, expected one of: {', '.join(columns)}"
                    for column in rule.their_columns()
                    if column not in columns
                ]
            where: list[str | int] = ["tables", table, "contract", "rules", index]
            problems += [source.problem(where, what) for what in said]
    return problems


def _circle(documents: Mapping[str, tuple[YamlSource, Mapping[str, JudgedTable]]]) -> list[str]:
    """A way through several documents that leads back; one inside a single document is that document's to refuse."""
    needed: dict[Table, list[Table]] = {
        (name, table): spec.references(name)
        for name, (_, tables) in documents.items()
        for table, spec in tables.items()
    }
    try:
        TopologicalSorter(needed).prepare()
    except CycleError as error:
        way: list[Table] = error.args[1]
        name, table = way[0]
        through = ", ".join(".".join(one) for one in way[1:-1])
        what = f"its rules lead back to itself through {through or 'itself'}, expected no cycle"
        return [documents[name][0].problem(["tables", table], what)]
    return []
