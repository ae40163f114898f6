"""The other silver table that a rule looks into: where it is, and of which types its columns are."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from datops_assets.errors import DeclarationError
from datops_assets.postgres.identifiers import silver_table
from datops_assets.quality.contract_rules import ReferringRule
from datops_assets.quality.judged import Subject
from datops_assets.quality.types import ValueType, value_type

_WRITTEN = {
    "double precision": "double",
    "time without time zone": "time",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
}


def other_silver(conn: psycopg.Connection[Any], subject: Subject, rule: ReferringRule) -> sql.Identifier:
    """The silver table that a rule refers to.

    raises  DeclarationError: the other table has no silver, or is this one
    """
    source, _, table = rule.references.rpartition(".")
    other = silver_table(source or subject.source, table)
    if other == subject.silver:
        raise DeclarationError(
            [f"{subject.label}: {rule.check_name()} refers to the table itself, expected another table"]
        )
    if conn.execute("select to_regclass(%s)", (other.as_string(conn),)).fetchone() == (None,):
        raise DeclarationError(
            [
                f"{subject.label}: {rule.check_name()} refers to {rule.references}, which has no"
                f" silver yet; judge it first"
            ]
        )
    return other


def silver_kinds(conn: psycopg.Connection[Any], table: sql.Identifier) -> dict[str, ValueType]:
    """The type of each column of a silver table, as a contract names it."""
    rows = conn.execute(
        "select attname, format_type(atttypid, atttypmod) from pg_attribute"
        " where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped",
        (table.as_string(conn),),
    )
    return {name: value_type(_WRITTEN.get(type_, type_), "UTC") for name, type_ in rows}
