"""A bronze column made as wide as what is delivered."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import psycopg

from datops_assets.errors import LoadRefusedError
from datops_assets.ingestion.bronze import BronzeColumn, widen_column
from datops_assets.ingestion.job import LoadJob
from datops_assets.postgres.widening import print_widening, wider

__all__ = ["fitting_column", "print_widening", "wider"]

_TEXTUAL = re.compile(
    r"smallint|integer|bigint|numeric(\(\d+,\d+\))?|boolean|date|time|timestamp|timestamptz|uuid|interval|inet"
)
"""Types that become text without a loss: what is printed of them is what silver judges anyway.

Not floats, whose text depends on who prints it, and not bytes.
"""


def fitting_column(
    conn: psycopg.Connection[Any], job: LoadJob, column: BronzeColumn, delivered: str
) -> BronzeColumn:
    """Return a bronze column as wide as what is delivered, widening it where no value changes by that.

    raises     LoadRefusedError: no type holds both. LockTakenError: readers held the table for too long
    """
    if column.in_more:
        return column
    target = wider(column.type, delivered)
    if target is None and delivered == "text" and _TEXTUAL.fullmatch(column.type):
        target = "text"
    if target is None:
        raise LoadRefusedError(
            f"{job.unit.path}: column {column.delivered.name!r} is {delivered}, in bronze it is {column.type}, and no"
            " type holds both without changing values; give the column another name, or load into another table"
        )
    if target != column.type:
        widen_column(conn, job.bronze, column.name, target)
    return replace(column, type=target)
