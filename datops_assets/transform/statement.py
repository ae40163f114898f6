"""One select out of a transformation's steps, for PostgreSQL or for Spark.

    with step_1 as (select … from silver.shop_orders), step_2 as (select … from step_1) select … from step_2

Built as a syntax tree; no text of a document is ever pasted into a statement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from datops_assets.transform.document import StepDocument
from datops_assets.transform.kinds import Columns
from datops_assets.transform.own import Python
from datops_assets.transform.step import Engine, Given, StepError, Table
from datops_assets.transform.syntax import columns_of, exp, name

_SPARK_DIGITS, _SPARK_SCALE = 38, 12
"""Spark's decimal needs both; PostgreSQL's numeric has neither."""


@dataclass(frozen=True)
class Statement:
    """A checked transformation.

    query     what the warehouse runs
    columns   what the transformation's table has, in order; None: a type the server decides
    python    the function that gets the query's rows, where there is one
    """

    query: exp.Query
    columns: Columns
    python: Python | None = None
    engine: Engine = "postgres"

    def text(self, *, pretty: bool = False) -> str:
        """The statement as the engine reads it."""
        return self.query.sql(dialect=self.engine, pretty=pretty)


def silver_table(source: str, table: str, columns: Columns) -> Table:
    """silver.<source>_<table>, as a step reads it."""
    return Table(exp.Table(this=name(f"{source}_{table}"), db=name("silver")), columns)


def build_statement(
    first: Table, steps: Sequence[StepDocument], others: Mapping[str, Table], engine: Engine = "postgres"
) -> Statement:
    """Chain the steps, each on the rows of the one before.

    first, others   the tables that the transformation reads; `others` by the names its steps give
    raises          StepError: with `where` beginning at `steps`
    """
    table, parts, python = first, [], None
    query: exp.Query = exp.Select().select(*columns_of(first.columns)).from_(first.reference.copy())
    for index, written in enumerate(steps):
        step = written.step
        given = Given(
            table, {word: others[word] for word in step.inputs()}, engine, last=index == len(steps) - 1
        )
        try:
            made = step.apply(given)
        except StepError as error:
            raise StepError(str(error), ("steps", index, written.word, *error.where)) from None
        python = step if isinstance(step, Python) else None
        query = made.query
        label = f"step_{index + 1}"
        parts.append((label, query))
        table = Table(exp.Table(this=name(label)), made.columns)
    for label, part in parts[:-1]:
        query = query.with_(name(label), as_=part, copy=False)
    if engine == "spark":
        query = _as_spark(query)
    return Statement(query, python.kinds() if python else table.columns, python, engine)


def _as_spark(query: exp.Query) -> exp.Query:
    def sized(node: exp.Expression) -> exp.Expression:
        if isinstance(node, exp.DataType) and node.is_type("decimal") and not node.expressions:
            return exp.DataType.build(f"decimal({_SPARK_DIGITS},{_SPARK_SCALE})")
        return node

    return cast("exp.Query", query.transform(sized))


def column_lineage(statement: Statement, tables: Mapping[str, Table]) -> dict[str, list[tuple[str, str]]]:
    """Which columns of which tables each column is made of.

    tables    what the statement reads, by any label of the caller's
    returns   (label, column) pairs, none where it cannot be told
    """
    if statement.python is not None:
        return {}
    from sqlglot.errors import SqlglotError
    from sqlglot.lineage import lineage

    labels = {table.reference.name: label for label, table in tables.items()}
    shapes = {
        table.reference.name: {word: kind or "unknown" for word, kind in table.columns.items()}
        for table in tables.values()
    }
    found: dict[str, list[tuple[str, str]]] = {}
    for word in statement.columns:
        try:
            tree = lineage(word, statement.query, schema={"silver": shapes}, dialect="postgres")
        except (SqlglotError, ValueError):  # a form it does not follow: no lineage is better than a wrong one
            continue
        leaves = set()
        for node in tree.walk():
            if isinstance(node.expression, exp.Table) and node.expression.name in labels:
                leaves.add((labels[node.expression.name], node.name.rpartition(".")[2].strip('"')))
        if leaves:
            found[word] = sorted(leaves)
    return found
