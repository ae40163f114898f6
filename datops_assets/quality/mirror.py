"""Judging a mirror: a bronze table that is updated in place, by the keys that changed since the last judgement.

Silver is the rows of the mirror that pass the contract. A key that changed leaves silver and the quarantine,
and its row of now is judged as any other; so only changed rows are read, and all of them again where the
contract changed, the mirror was copied anew, or a unique rule refuses rows. One load of the catalogue stands
for the mirror; `_row` numbers the judged rows and grows.

Belongs here: what is judged and what must go before. Does not: verdicts (run.py), which keys changed (whoever
keeps the mirror says so).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

import psycopg
from psycopg import sql
from psycopg.sql import SQL, Composable

from datops_assets.errors import DeclarationError
from datops_assets.postgres.failpoints import hit
from datops_assets.postgres.identifiers import bronze_table
from datops_assets.postgres.tables import lock_table, table_id
from datops_assets.postgres.ulid import new_ulid
from datops_assets.quality import record
from datops_assets.quality.delivered import BronzeColumn, Delivered
from datops_assets.quality.judged import Judgement, Kind, Subject
from datops_assets.quality.judging import judging_errors
from datops_assets.quality.row_query import plain_text
from datops_assets.quality.run import Run
from datops_assets.quality.silver import LEFT_KEYS
from datops_assets.quality.work import CONTRACT_CHANGED, Work, judges_in_turn

Connection = psycopg.Connection[Any]

_KEYS = sql.Identifier("pg_temp", "_changed_keys")
_ROWS = sql.Identifier("pg_temp", "_mirror_rows")


class Mirror(Protocol):
    """What is asked of whoever keeps a mirror. All is read inside the judgement's transaction."""

    def key(self, conn: Connection) -> Sequence[str]:
        """The mirror's columns that tell its rows apart; none where there is no mirror."""
        ...

    def columns(self, conn: Connection) -> Sequence[str]:
        """The columns of its rows, in order."""
        ...

    def rows(self, conn: Connection) -> Composable:
        """What to select them from: those that are to be judged."""
        ...

    def place(self, conn: Connection) -> str:
        """How far its changes have come, in a word that only `changed` must understand."""
        ...

    def changed(self, conn: Connection, since: str) -> Composable | None:
        """A query of the keys that changed since a place, under the mirror's names; None: any may have."""
        ...


@dataclass(frozen=True)
class MirrorSubject(Subject):
    """A mirror and its contract. What is judged of it stands in a temporary table, numbered."""

    @property
    def bronze(self) -> sql.Identifier:
        """The rows to judge."""
        return _ROWS

    @property
    def mirror(self) -> sql.Identifier:
        """The table that they are of."""
        return bronze_table(self.source, self.table)


@dataclass(frozen=True)
class _State:
    load_id: int
    place: str
    last_row: int


def judge_mirror(
    conn: Connection,
    subject: MirrorSubject,
    mirror: Mirror,
    *,
    kind: Kind = "load",
    run_id: str | None = None,
) -> Judgement:
    """Judge the rows of a mirror that changed since the last judgement, and bring silver up to date.

    conn      autocommit, no transaction open
    kind      rebuild: judge all rows; replay: judge those that wait in the quarantine again too
    raises, promise   as `judge_table`; the place is kept in the same transaction. What the mirror gains
              meanwhile is judged by the next call
    """
    started_at = datetime.now(UTC)
    with lock_table(conn, subject.source, subject.table):
        number = table_id(conn, subject.source, subject.table)
        with judging_errors(conn, subject, number, started_at, run_id), conn.transaction():
            judgement = _judge(conn, subject, number, mirror, kind, started_at, run_id)
            hit("mirror.judged")
        hit("mirror.committed")
        return judgement


def _judge(
    conn: Connection,
    subject: MirrorSubject,
    number: int,
    mirror: Mirror,
    kind: Kind,
    started_at: datetime,
    run_id: str | None,
) -> Judgement:
    key = list(mirror.key(conn))
    if not key:
        raise DeclarationError(
            [f"{subject.label} has no mirror yet; copy the tables: datops cdc snapshot {subject.source}"]
        )
    place = mirror.place(conn)
    state = _read_state(conn, number)
    _enter_columns(conn, subject, number, state, mirror.columns(conn))
    run = _MirrorRun(conn, subject, number, mirror)
    _require_same_key(run, key)
    why = "asked for" if kind == "rebuild" else _why_whole(run, state, place)
    changed = mirror.changed(conn, state.place) if state is not None and not why else None
    if state is None or why or changed is None:
        why = why or "the mirror was copied anew or emptied"
        load_id = _enter_load(conn, subject, number, run_id, state)
        last_row = run.take_all(load_id)
        work = Work("rebuild", why, (load_id,), (state.load_id,) if state else ())
        kind = kind if kind == "replay" else "rebuild"
    else:
        load_id = state.load_id
        keys = run.note_keys(changed, waiting=kind == "replay")
        if keys == 0:
            _write_state(conn, number, _State(load_id, place, state.last_row))
            return Judgement(
                subject.label, kind, "unchanged", subject.version, "nothing is new",
                rows_total=run.rows_total(), checks=run.standing_checks(),
            )  # fmt: skip
        last_row = run.take_changed(load_id, state.last_row)
        work = Work("change", f"{keys} key(s) changed", (load_id,), (load_id,))
    judgement = run.carry_out(work, kind, started_at, run_id)
    _write_state(conn, number, _State(load_id, place, last_row))
    return judgement


def _why_whole(run: Run, state: _State | None, place: str) -> str:
    """Why all rows are to be judged; '' where those that changed will do."""
    if state is None:
        return "silver is made for the first time"
    if record.judged_loads(run.conn, run.number).get(state.load_id) != run.subject.version:
        return CONTRACT_CHANGED
    if not run.silver.fits():
        return "silver does not have the contract's columns"
    if judges_in_turn(run.subject) and place != state.place:
        return "a unique rule refuses rows, which depends on all others"
    return ""


class _MirrorRun(Run):
    """A judgement of rows of a mirror."""

    def __init__(self, conn: Connection, subject: MirrorSubject, number: int, mirror: Mirror) -> None:
        self.mirror, self.key = subject.mirror, list(mirror.key(conn))
        self.rows, self.columns = mirror.rows(conn), {*mirror.columns(conn)}
        super().__init__(conn, subject, number)

    def _delivered(self) -> Delivered:
        """Without what whoever keeps the mirror has written beside its rows."""
        found = super()._delivered()
        types = {name: kind for name, kind in found.types.items() if name in self.columns}
        return replace(found, physical=tuple(types), types=types)

    def note_keys(self, changed: Composable, *, waiting: bool) -> int:
        """Note the changed keys in the temporary table `_changed_keys`; returns how many."""
        # Few of many: without figures on rows just written the planner would read all there are.
        self.conn.execute("set local enable_seqscan = off")
        self.conn.execute(SQL("create temp table _changed_keys on commit drop as {}").format(changed))
        self.conn.execute("set local enable_seqscan = on")
        if waiting:
            self.conn.execute(
                SQL(
                    "insert into {} ({}) select {} from {} as q, json_populate_record(null::{}, q.record) as r"
                ).format(_KEYS, self._listed(""), self._listed("r."), self.subject.quarantine, self.mirror)
                + SQL(" where q.stage = 'silver' except select {} from {}").format(self._listed(""), _KEYS)
            )
        self.conn.execute(SQL("analyze {}").format(_KEYS))
        row = self.conn.execute(SQL("select count(*) from {}").format(_KEYS)).fetchone()
        assert row is not None
        return int(row[0])

    def take_all(self, load_id: int) -> int:
        """Number all rows of the mirror; returns the highest number."""
        return self._take(load_id, 0, SQL(""))

    def take_changed(self, load_id: int, last_row: int) -> int:
        """Number the rows of the changed keys, after those there were; returns the highest number."""
        same = SQL(" and ").join(SQL("m.{0} = k.{0}").format(sql.Identifier(name)) for name in self.key)
        return self._take(load_id, last_row, SQL(" join {} as k on {}").format(_KEYS, same))

    def _take(self, load_id: int, last_row: int, narrowed: Composable) -> int:
        numbered = SQL(
            "create temp table _mirror_rows on commit drop as"
            " select {}::bigint as _load_id, {} + row_number() over () as _row, m.* from {} as m{}"
        )
        rows = self.conn.execute(
            numbered.format(sql.Literal(load_id), sql.Literal(last_row), self.rows, narrowed)
        ).rowcount
        self.conn.execute(SQL("analyze {}").format(_ROWS))
        return last_row + rows

    def _change(self, work: Work) -> None:
        """Take the changed keys out of silver and quarantine, and judge their rows of now."""
        removed = self._remove_changed()
        self._forget_changed()
        self._judge_loads(work.new)
        # A key that is there again has changed; it has neither left nor come.
        again = removed - self.silver.count_missing(LEFT_KEYS)
        self.tally.inserted -= again
        self.tally.updated += again
        self.tally.deleted += removed - again

    def _remove_changed(self) -> int:
        contract = self.subject.contract
        self.conn.execute("drop table if exists pg_temp._left_keys")
        self.conn.execute(
            SQL("create temp table _left_keys on commit drop as select {} from {} limit 0").format(
                SQL(", ").join(self.silver.key), self.silver.table
            )
        )
        typed = []
        for name in contract.key:
            (column,) = self.query.made_of[name]
            rule = contract.columns[name]
            typed.append(
                SQL("{} as {}").format(rule.kind.to_sql(plain_text(column, rule)), sql.Identifier(name))
            )
        same = SQL(" and ").join(SQL("s.{0} = k.{0}").format(name) for name in self.silver.key)
        statement = SQL(
            "with gone as (delete from {} as s using (select {} from {} as b offset 0) as k where {} returning s.*)"
            " insert into _left_keys select {} from gone"
        ).format(self.silver.table, SQL(", ").join(typed), _KEYS, same, SQL(", ").join(self.silver.key))
        removed = self.conn.execute(statement).rowcount
        self.conn.execute("analyze _left_keys")
        return removed

    def _forget_changed(self) -> None:
        """Take the changed keys out of the quarantine, where rows are JSON."""
        same = SQL(" and ").join(
            SQL("q.record ->> {0} = k.key ->> {0}").format(sql.Literal(name)) for name in self.key
        )
        self.conn.execute(
            SQL(
                "delete from {} as q using (select row_to_json(c) as key from {} as c) as k"
                " where q.stage = 'silver' and {}"
            ).format(self.subject.quarantine, _KEYS, same)
        )

    def _listed(self, prefix: str) -> Composable:
        return SQL(", ").join(SQL(prefix) + sql.Identifier(name) for name in self.key)


def _require_same_key(run: Run, key: Sequence[str]) -> None:
    """Hold that the contract's key is the mirror's, value by value: a deleted row is found in silver by it.

    raises    DeclarationError
    """
    contract = run.subject.contract
    made_of = {name: run.query.made_of[name] for name in contract.key}
    columns: list[BronzeColumn] = [column for columns in made_of.values() for column in columns]
    as_it_is = all(
        len(made_of[name]) == 1 and not (rule.clean or rule.formats or rule.from_ or rule.timezone)
        for name, rule in contract.columns.items()
        if name in made_of
    )
    if {column.name for column in columns} != set(key) or not as_it_is:
        raise DeclarationError(
            [
                f"{run.subject.label}: the contract's key is {', '.join(contract.key) or 'missing'}, expected the"
                f" mirror's, {', '.join(key)}, as it is: without clean, formats and from"
            ]
        )


def _enter_columns(
    conn: Connection, subject: MirrorSubject, number: int, state: _State | None, columns: Sequence[str]
) -> None:
    """Enter the mirror's columns as delivered under their own names: names and lineage are read there."""
    table = subject.mirror.as_string(conn)
    for ours in {"_load_id", "_row"} & {*columns}:
        raise DeclarationError(
            [f"{subject.label} has a column {ours}, as silver has one of its own; expected `silver: view`"]
        )
    conn.execute(
        "insert into datops.columns (table_id, delivered, name, type, position, first_load_id)"
        " select %s, attname, attname, format_type(atttypid, atttypmod), attnum, %s from pg_attribute"
        " where attrelid = %s::regclass and attname = any (%s)"
        " on conflict (table_id, delivered, occurrence)"
        " do update set type = excluded.type, position = excluded.position"
        " where columns.type <> excluded.type or columns.position <> excluded.position",
        (number, state.load_id if state else 0, table, list(columns)),
    )


def _enter_load(
    conn: Connection, subject: MirrorSubject, number: int, run_id: str | None, state: _State | None
) -> int:
    """Enter the load that stands for the mirror from now on, in place of the one before."""
    row = conn.execute(
        "insert into datops.loads (ulid, table_id, path, format, state, batch, run_id, finished_at)"
        " values (%s, %s, %s, 'mirror', 'loaded', 'mirror', %s, clock_timestamp()) returning load_id",
        (new_ulid(), number, f"bronze.{subject.silver_name}", run_id),
    ).fetchone()
    assert row is not None
    if state is not None:
        conn.execute(
            "update datops.loads set state = 'superseded', superseded_by = %s where load_id = %s",
            (row[0], state.load_id),
        )
    return int(row[0])


def _read_state(conn: Connection, number: int) -> _State | None:
    row = conn.execute(
        "select load_id, place, last_row from datops.mirror_judgements where table_id = %s", (number,)
    ).fetchone()
    return _State(*row) if row else None


def _write_state(conn: Connection, number: int, state: _State) -> None:
    conn.execute(
        "insert into datops.mirror_judgements (table_id, load_id, place, last_row) values (%s, %s, %s, %s)"
        " on conflict (table_id) do update set load_id = excluded.load_id, place = excluded.place,"
        " last_row = excluded.last_row",
        (number, state.load_id, state.place, state.last_row),
    )
