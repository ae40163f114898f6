"""A declared contract against the one silver was judged by, and against what bronze delivers now.

Belongs here: comparing, and a judgement that leaves nothing behind. Does not: judging for good (run).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.sql import SQL

from datops_assets.errors import DeclarationError
from datops_assets.postgres.names import contract_name
from datops_assets.postgres.tables import find_table_id
from datops_assets.quality import own_schema, record, set_rules
from datops_assets.quality.contract_rules import UniqueRule
from datops_assets.quality.delivered import Delivered, read_delivered
from datops_assets.quality.judged import Subject
from datops_assets.quality.row_query import RowQuery
from datops_assets.quality.run import SETTINGS
from datops_assets.quality.stage import Stage

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Difference:
    """One thing that is declared otherwise than silver was judged by, or than bronze delivers."""

    what: str
    declared: str | None
    found: str | None


@dataclass(frozen=True)
class DryJudgement:
    """What a judgement of all live loads would say, by reason; `rows` were judged, `failing` would be set aside.

    not_judged   a sentence for each rule that could not be asked
    """

    rows: int
    failing: int
    reasons: Mapping[str, int]
    not_judged: tuple[str, ...] = ()


@dataclass(frozen=True)
class ContractDiff:
    """What changes with the declared contract. `dry` is None where it was not asked for, or nothing is loaded."""

    table: str
    judged_by: tuple[Difference, ...]
    delivered: tuple[Difference, ...]
    dry: DryJudgement | None = None
    waiting: Mapping[str, int] | None = None
    """How many rows wait for each reason now."""

    @property
    def newly_failing(self) -> dict[str, int]:
        """By reason: the rows that would wait beyond those that wait for it now."""
        if self.dry is None:
            return {}
        before = self.waiting or {}
        more = {reason: rows - before.get(reason, 0) for reason, rows in self.dry.reasons.items()}
        return {reason: rows for reason, rows in more.items() if rows > 0}


def diff_contract(conn: Connection, subject: Subject, *, judge: bool = True) -> ContractDiff:
    """Compare a contract with what there is. Writes nothing.

    judge    also judge all live loads, in a transaction that is rolled back: as long as a rebuild reads
    """
    from datops_assets.quality.quarantine import list_quarantine

    number = find_table_id(conn, subject.source, subject.table)
    delivered = read_delivered(conn, subject.source, subject.table)
    judged_by = tuple(_since_judged(conn, number, subject)) if number is not None else ()
    found = tuple(_against_delivered(subject, delivered)) if delivered.exists else ()
    if not judge or number is None or not delivered.exists:
        return ContractDiff(subject.label, judged_by, found)
    waiting: dict[str, int] = {}
    for reason in list_quarantine(conn, subject.source, subject.table):
        if reason.stage == "silver":
            waiting[reason.reason] = reason.rows
    return ContractDiff(subject.label, judged_by, found, judge_dry(conn, subject), waiting)


def judge_dry(conn: Connection, subject: Subject) -> DryJudgement:
    """Judge all live loads and keep nothing of it."""
    number = find_table_id(conn, subject.source, subject.table)
    assert number is not None, "a table that nothing was loaded into has no rows to judge"
    loads = [load.load_id for load in record.live_loads(conn, number)]
    with conn.transaction(force_rollback=True):
        conn.execute(SETTINGS)
        delivered = read_delivered(conn, subject.source, subject.table)
        query = RowQuery(subject, delivered, record.has_dropped_records(conn, number))
        stage = Stage(conn, query, loads, None)
        passed = stage.fill()
        rows = stage.delivered_rows()
        reasons: dict[str, int] = {}
        if passed < rows:
            refused = query.select(
                SQL("unnest({}) as reason").format(query.reasons()), loads, where=query.refused()
            )
            counted = SQL("select reason, count(*) from ({}) as r group by 1").format(refused)
            reasons.update(conn.execute(counted).fetchall())
        beyond, not_judged = _beyond_rows(stage)
        failing = rows - passed + stage.remove_refused()
    return DryJudgement(
        rows, failing, dict(sorted({**reasons, **beyond}.items(), key=lambda r: -r[1])), not_judged
    )


def _beyond_rows(stage: Stage) -> tuple[dict[str, int], tuple[str, ...]]:
    """Fill `_refused` by the rules that look beyond a row; their reasons, and what could not be asked."""
    subject = stage.query.subject
    set_rules.create_refused(stage.conn)
    own_schema.refuse(stage)
    not_judged = []
    for rule in set_rules.refusing_rules(subject):
        try:
            failing = (
                _repeated(stage, rule)
                if isinstance(rule, UniqueRule)
                else set_rules.failing_rows(stage, rule)
            )
        except DeclarationError as error:
            not_judged.append(str(error))
            continue
        stage.conn.execute(
            SQL("insert into _refused select f._load_id, f._row, {} from ({}) as f").format(
                sql.Literal(set_rules.reason_of(rule)), failing
            )
        )
    counted = stage.conn.execute("select reason, count(*) from _refused group by 1").fetchall()
    return dict(counted), tuple(not_judged)


def _repeated(stage: Stage, rule: UniqueRule) -> sql.Composable:
    """Rows whose values another key had before them, as a judgement from nothing would find them."""
    values = SQL(", ").join(map(sql.Identifier, rule.unique))
    present = SQL(" and ").join(SQL("{} is not null").format(sql.Identifier(name)) for name in rule.unique)
    key = [sql.Identifier(name) for name in stage.query.subject.contract.key or ["_load_id", "_row"]]
    mine = SQL("row({})::record").format(SQL(", ").join(key))
    return SQL(
        "select _load_id, _row from (select _load_id, _row, {mine} as mine,"
        " first_value({mine}) over (partition by {values} order by _load_id, _row) as first"
        " from {stage} where {present}) as c where mine is distinct from first"
    ).format(mine=mine, values=values, stage=stage.table, present=present)


def _since_judged(conn: Connection, number: int, subject: Subject) -> Iterator[Difference]:
    """What is declared otherwise than in the contract that judged the newest of silver's loads."""
    row = conn.execute(
        "select c.document from datops.judged_loads j join datops.contracts c using (contract_id)"
        " where j.table_id = %s order by j.judgement_id desc limit 1",
        (number,),
    ).fetchone()
    if row is None:
        return
    before = {"rename": row[0].get("rename", {}), **row[0].get("contract", {})}
    now = {
        "rename": dict(subject.rename),
        **subject.contract.model_dump(mode="json", by_alias=True, exclude_defaults=True),
    }
    yield from _parts("column", now.pop("columns", {}), before.pop("columns", {}))
    yield from _parts("rename", now.pop("rename"), before.pop("rename"))
    yield from _parts("rule", _named(now.pop("rules", [])), _named(before.pop("rules", [])))
    yield from _parts("", now, before)


def _parts(kind: str, now: Mapping[str, Any], before: Mapping[str, Any]) -> Iterator[Difference]:
    for name in dict.fromkeys([*now, *before]):
        if now.get(name) != before.get(name):
            yield Difference(f"{kind} {name}".strip(), _said(now.get(name)), _said(before.get(name)))


def _named(rules: list[dict[str, Any]]) -> dict[str, Any]:
    return {rule.get("name") or _said(rule) or "": rule for rule in rules}


def _said(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_said(part)}" for key, part in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _against_delivered(subject: Subject, delivered: Delivered) -> Iterator[Difference]:
    """Columns that no delivery has, and delivered ones that the contract does not name."""
    contract = subject.contract
    made_of = delivered.made_of(contract, subject.rename)
    for name, rule in contract.columns.items():
        if rule.from_ is None and not made_of[name]:
            yield Difference(f"column {name}", rule.type, None)
    known = {*contract.columns, *contract.ignore}
    for column in delivered.columns:
        if contract_name(column.delivered, subject.rename) not in known:
            yield Difference(f"delivered {column.delivered!r}", None, column.type)
