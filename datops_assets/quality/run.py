"""One judgement inside its transaction: the steps between what bronze holds and what silver becomes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.sql import SQL, Composable

from datops_assets.postgres.failpoints import hit
from datops_assets.postgres.quarantine_table import ensure_quarantine_table
from datops_assets.quality import own_schema, record, set_rules, table_rules
from datops_assets.quality.contract_rules import (
    CompareRule,
    ForeignKeyRule,
    FreshnessRule,
    HoldsRule,
    RowCountRule,
    UniqueRule,
    VolumeRule,
)
from datops_assets.quality.delivered import Delivered, not_delivered, read_delivered
from datops_assets.quality.judged import (
    CheckResult,
    Judgement,
    JudgementBlockedError,
    Kind,
    Subject,
    quality_score,
    threshold_kept,
)
from datops_assets.quality.row_checks import RowCheck
from datops_assets.quality.row_query import RowQuery
from datops_assets.quality.silver import LEFT_KEYS, Merged, Silver
from datops_assets.quality.stage import Stage
from datops_assets.quality.swap import swap_in
from datops_assets.quality.work import (
    Work,
    due_for_days,
    judges_in_turn,
    plan_work,
    stays_outside,
)

Connection = psycopg.Connection[Any]

SETTINGS = """
set local timezone = 'UTC'; set local datestyle = 'ISO, YMD'; set local intervalstyle = 'postgres';
set local bytea_output = 'hex'; set local extra_float_digits = 1; set local standard_conforming_strings = on;
-- Bounds sorts and hashes, which spill to disk past it: peak memory does not grow with the table.
set local work_mem = '64MB'; set local hash_mem_multiplier = 1; set local maintenance_work_mem = '96MB';
-- Compiling the many expressions of a contract costs more than it saves on any table tried.
set local jit = off
"""

_GROWTH_WORTH_ANALYZE = 0.1


@dataclasses.dataclass
class Tally:
    """Counts of one judgement so far. `warned` and `present` are counted over passing rows."""

    rows_judged: int = 0
    rows_refused: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    warned: dict[str, int] = dataclasses.field(default_factory=dict)
    present: dict[str, int] = dataclasses.field(default_factory=dict)
    cleaned: dict[str, int] = dataclasses.field(default_factory=dict)
    reasons: dict[str, int] = dataclasses.field(default_factory=dict)

    def merged(self, change: Merged) -> None:
        """Add what one statement changed."""
        self.inserted += change.inserted
        self.updated += change.updated


class Run:
    """One judgement inside the caller's transaction, under the table's lock."""

    def __init__(self, conn: Connection, subject: Subject, number: int) -> None:
        self.conn, self.subject, self.number = conn, subject, number
        conn.execute(SETTINGS)
        self.query = RowQuery(subject, self._delivered(), record.has_dropped_records(conn, number))
        self.silver = Silver(conn, subject)
        self.tally = Tally()

    def _delivered(self) -> Delivered:
        """The columns that the rows to judge have."""
        return read_delivered(self.conn, self.subject.source, self.subject.table)

    def plan(self, *, again: Sequence[str] = (), rebuild: bool = False, waiting: bool = False) -> Work:
        """Compare what is live with what silver holds."""
        self.live = record.live_loads(self.conn, self.number)
        judged = record.judged_loads(self.conn, self.number)
        if stays_outside(again, self.subject, judged):
            self.live = due_for_days(again, self.live, record.held_loads(self.conn, self.number))
        replay = self._note_waiting() if waiting else ()
        return plan_work(
            self.subject, self.live, judged,
            silver_fits=self.silver.fits(), again=again, rebuild=rebuild, replay=replay,
        )  # fmt: skip

    def carry_out(self, work: Work, kind: Kind, started_at: datetime, run_id: str | None) -> Judgement:
        """Do the work; the caller's transaction commits or rolls back all of it.

        raises  JudgementBlockedError: a blocking check failed
        """
        began = time.monotonic()
        ensure_quarantine_table(self.conn, self.subject.source, self.subject.table)
        self.contract_id = record.contract_id(self.conn, self.number, self.subject)
        whole = work.what == "rebuild"
        if whole:
            self._rebuild(work)
        else:
            self._change(work)
        if whole or self._has_grown():
            self.conn.execute(SQL("analyze {}").format(self.silver.table))
        hit("judge.merged")
        judgement = self._conclude(work, kind, began)
        if whole:
            swap_in(self.conn, self.silver.name, self.subject.silver_name)
        judgement = record.write_judgement(
            self.conn, self.number, self.contract_id, judgement,
            started_at=started_at, run_id=run_id, metrics=self._metrics(judgement),
        )  # fmt: skip
        record.write_judged_loads(
            self.conn, self.number, self.contract_id, judgement, whole=whole, gone=work.gone
        )
        hit("judge.recorded")
        return judgement

    def _has_grown(self) -> bool:
        """Whether the planner's picture of silver is wrong by now: small loads into a great table leave it right."""
        row = self.conn.execute(
            "select reltuples from pg_class where oid = %s::regclass",
            (self.silver.table.as_string(self.conn),),
        ).fetchone()
        assert row is not None
        changed = self.tally.inserted + self.tally.updated + self.tally.deleted
        return changed > _GROWTH_WORTH_ANALYZE * max(row[0], 0)

    def standing_checks(self) -> tuple[CheckResult, ...]:
        """What the last judgement found, which holds where nothing is new, but for what time alone changes."""
        last = record.last_checks(self.conn, self.number)
        return table_rules.rechecked(self.conn, self.subject, self.silver.table, last)

    def rows_total(self) -> int:
        """Rows in silver before this judgement."""
        known = record.last_rows_total(self.conn, self.number)
        if known is not None:
            return known
        return self.silver.count() if self.silver.actual_columns() else 0

    def _rebuild(self, work: Work) -> None:
        before, rows_before = self.silver, self.rows_total()
        self.conn.execute(SQL("delete from {} where stage = 'silver'").format(self.subject.quarantine))
        self.silver = Silver(self.conn, self.subject, f"{self.subject.silver_name}__new")
        if judges_in_turn(self.subject) or not work.new or not self.query.delivered.exists:
            self.silver.create()
            self.silver.create_index()
            for load_id in work.new:
                self._judge_loads([load_id])
        else:
            self._judge_loads(work.new, into_new_table=True)
        if before.key and before.fits():
            self.tally.deleted = self.silver.count_missing(before.table)
        else:
            self.tally.deleted = max(rows_before - self.silver.count(), 0)

    def _change(self, work: Work) -> None:
        if work.gone:
            self.tally.deleted += self.silver.remove_loads(work.gone)
            self._forget_quarantined(work.gone)
            self._bring_back(work.kept)
        in_turn = judges_in_turn(self.subject)
        for group in [[load_id] for load_id in work.new] if in_turn else [list(work.new)]:
            self._judge_loads(group)
        if work.replay:
            self._replay(work.replay)
        if work.gone and self.silver.key and self.subject.disposition in ("replace", "snapshot"):
            # A key that was delivered again has changed; it has neither left nor come.
            again = self.tally.deleted - self.silver.count_missing(LEFT_KEYS)
            self.tally.merged(Merged(-again, again))
            self.tally.deleted -= again

    def _judge_loads(
        self, loads: Sequence[int], *, into_new_table: bool = False, scope: Composable | None = None
    ) -> None:
        """Judge rows: those that pass become typed, meet the set rules and reach silver; the others wait."""
        if not loads or not self.query.delivered.exists:
            return
        stage = Stage(self.conn, self.query, loads, scope)
        passed = stage.fill(self.silver.table if into_new_table else None)
        by_set_rules = self._refuse_by_set_rules(stage)
        rows = stage.delivered_rows()
        refused = rows - passed + by_set_rules
        self.tally.rows_judged += rows
        self.tally.rows_refused += refused
        self._count(stage)
        if refused:
            self._quarantine(stage)
        hit("judge.inserted")
        if into_new_table:
            self.silver.keep_winners()
            self.silver.finish()
            self.tally.merged(Merged(self.silver.count()))
        else:
            self.tally.merged(self.silver.merge(stage.rows()))

    def _refuse_by_set_rules(self, stage: Stage) -> int:
        self.with_set_rules = (
            bool(set_rules.refusing_rules(self.subject)) or self.subject.contract.pandera is not None
        )
        if not self.with_set_rules:
            return 0
        set_rules.create_refused(self.conn)
        self.conn.execute(SQL("analyze {}").format(stage.table))
        own_schema.refuse(stage)
        set_rules.refuse(self.silver, stage)
        self.conn.execute("analyze _refused")
        return stage.remove_refused()

    def _count(self, stage: Stage) -> None:
        """Count warnings, nulls and cleaned texts."""
        warnings = {check.name: check.fails for check in self.query.checks if not check.refuses}
        _add(self.tally.warned, stage.count(warnings))
        present = {name: SQL("{} is not null").format(sql.Identifier(name)) for name in self.query.columns}
        _add(self.tally.present, stage.count(present))
        if self.query.cleaned():
            row = self.conn.execute(self.query.count_cleaned(stage.loads, stage.scope)).fetchone()
            assert row is not None
            _add(self.tally.cleaned, dict(zip(self.query.cleaned(), row, strict=True)))
        for rule in self.subject.contract.rules:
            if isinstance(rule, ForeignKeyRule | HoldsRule) and rule.severity == "warn":
                _add(self.tally.warned, {rule.check_name(): set_rules.count_failing(stage, rule)})

    def _quarantine(self, stage: Stage) -> None:
        """Set aside the rows that are not on the stage, each with all its reasons."""
        reasons = self.query.reasons()
        if self.with_set_rules:
            reasons = SQL("{} || {}").format(reasons, _REFUSED_REASONS)
        outputs = SQL("_load_id, _row, 'silver', {}, {}, {}::bigint").format(
            reasons, self.query.record(), sql.Literal(self.contract_id)
        )
        self.conn.execute(
            SQL("insert into {} (_load_id, _row, stage, reasons, record, contract_id) {}").format(
                self.subject.quarantine, self.query.select(outputs, stage.loads, scope=stage.note_missing())
            )
        )
        counted = SQL(
            "select reason, count(*) from {} as q join _missing as m using (_load_id, _row),"
            " unnest(q.reasons) as reason where q.stage = 'silver' group by reason"
        ).format(self.subject.quarantine)
        _add(self.tally.reasons, dict(self.conn.execute(counted).fetchall()))

    def _replay(self, loads: Sequence[int]) -> None:
        """Judge the noted rows again; those refused once more wait since the day they waited before."""
        self._forget_quarantined(loads)
        self._judge_loads(loads, scope=_IN_WAITING)
        self.conn.execute(
            SQL(
                "update {} as q set quarantined_at = w.quarantined_at from _waiting as w"
                " where q._load_id = w._load_id and q._row = w._row"
            ).format(self.subject.quarantine)
        )

    def _note_waiting(self) -> tuple[int, ...]:
        """Note refused rows in the temporary table `_waiting`; returns their loads."""
        ensure_quarantine_table(self.conn, self.subject.source, self.subject.table)
        self.conn.execute(
            SQL(
                "create temp table _waiting on commit drop as select q._load_id, q._row, q.quarantined_at"
                " from {} as q join datops.judged_loads as j on j.load_id = q._load_id where q.stage = 'silver'"
            ).format(self.subject.quarantine)
        )
        self.conn.execute("analyze _waiting")
        rows = self.conn.execute("select distinct _load_id from _waiting order by 1")
        return tuple(load_id for (load_id,) in rows)

    def _forget_quarantined(self, loads: Sequence[int]) -> None:
        self.conn.execute(
            SQL("delete from {} where stage = 'silver' and _load_id = any ({}::bigint[])").format(
                self.subject.quarantine, sql.Literal(list(loads))
            )
        )

    def _bring_back(self, kept: Sequence[int]) -> None:
        """Put the runners-up of the keys that just left into silver."""
        if not self.subject.contract.key or not kept:
            return
        columns = SQL(", ").join(self.silver.columns)
        not_waiting = SQL(
            "not exists (select from {} as q where q._load_id = b._load_id and q._row = b._row)"
        ).format(self.subject.quarantine)
        passing = SQL("not {}").format(self.query.refused())
        rows = SQL(
            "select {columns} from ({passing}) as c where exists"
            " (select from (select {left} as key from _left_keys as k) as k where k.key = {key})"
        ).format(
            columns=columns,
            passing=self.query.select(columns, kept, where=passing, scope=not_waiting),
            left=self.silver.record_key("k"),
            key=self.silver.record_key("c"),
        )
        self.tally.merged(self.silver.merge(rows))

    def _conclude(self, work: Work, kind: Kind, began: float) -> Judgement:
        """Decide every check, and stop here when one blocks."""
        tally = self.tally
        # Counting a great table for each small load would cost more than judging it.
        rows_total = (
            self.silver.count()
            if work.what == "rebuild"
            else self.rows_total() + tally.inserted - tally.deleted
        )
        checks = self._row_results() + self._set_results(rows_total, work.new)
        judgement = Judgement(
            self.subject.label, kind, "judged", self.subject.version, work.why,
            loads=work.new,
            rows_judged=tally.rows_judged, rows_passed=tally.rows_judged - tally.rows_refused,
            rows_quarantined=tally.rows_refused, rows_inserted=tally.inserted, rows_updated=tally.updated,
            rows_deleted=tally.deleted, rows_total=rows_total,
            # Rows that failed before are no sample of what was delivered.
            score=None if work.replay else quality_score(checks),
            checks=tuple(checks), reasons=dict(tally.reasons), seconds=time.monotonic() - began,
        )  # fmt: skip
        if any(check.severity == "block" and not check.passed for check in checks):
            raise JudgementBlockedError(
                dataclasses.replace(
                    judgement, state="blocked", rows_inserted=0, rows_updated=0, rows_deleted=0
                )
            )
        return judgement

    def _row_results(self) -> list[CheckResult]:
        results = []
        for check in self.query.checks:
            failed = self.tally.reasons.get(check.reason, 0) + self.tally.warned.get(check.name, 0)
            kept = threshold_kept(failed, self.tally.rows_judged, check.max_rows, check.max_ratio)
            detail = {"said": said} if failed and (said := self._not_delivered(check)) else None
            results.append(
                CheckResult(
                    check.name, check.column, check.severity, self.tally.rows_judged, failed, kept, detail
                )
            )
        return results

    def _not_delivered(self, check: RowCheck) -> str | None:
        """Why all rows miss a value, where it is that no file has the column."""
        name = check.column
        if name is None or check.name not in (f"{name}.required", f"{name}.key"):
            return None
        if self.query.made_of[name] or self.subject.contract.columns[name].from_ is not None:
            return None
        return not_delivered(name, (column.delivered for column in self.query.delivered.columns))

    def _set_results(self, rows_total: int, loads: Sequence[int]) -> list[CheckResult]:
        judged = self.tally.rows_judged
        results = own_schema.results(self.subject, self.tally.reasons, judged)
        for rule in self.subject.contract.rules:
            if isinstance(rule, RowCountRule):
                results.append(set_rules.check_row_count(rule, rows_total if rule.of == "table" else judged))
            elif isinstance(rule, UniqueRule) and rule.severity == "warn":
                results.append(set_rules.check_unique(self.conn, self.silver, rule, rows_total))
            elif isinstance(rule, CompareRule):
                table = self.silver.table
                results.append(table_rules.check_compare(self.conn, self.subject, table, rule))
            elif isinstance(rule, FreshnessRule):
                results.append(table_rules.check_freshness(self.conn, self.silver.table, rule))
            elif isinstance(rule, VolumeRule):
                results.append(table_rules.check_volume(self.conn, self.number, loads, rule))
            elif isinstance(rule, set_rules.SetRule):
                failed = self.tally.reasons.get(set_rules.reason_of(rule), 0)
                failed += self.tally.warned.get(rule.check_name(), 0)
                results.append(set_rules.check_rows(rule, judged, failed))
        return results

    def _metrics(self, judgement: Judgement) -> dict[str, float]:
        """What is kept over time, by name."""
        metrics: dict[str, float] = {
            "rows_judged": judgement.rows_judged,
            "rows_passed": judgement.rows_passed,
            "rows_quarantined": judgement.rows_quarantined,
            "rows_total": judgement.rows_total,
            "seconds": judgement.seconds,
        }
        if judgement.score is not None:
            metrics["score"] = judgement.score
        for check in judgement.checks:
            metrics[f"failed:{check.name}"] = check.rows_failed
            if check.rows_judged:
                metrics[f"failed_ratio:{check.name}"] = check.rows_failed / check.rows_judged
        if judgement.rows_passed and judgement.kind != "replay":
            for name, present in self.tally.present.items():
                metrics[f"null_ratio:{name}"] = 1 - present / judgement.rows_passed
            metrics |= {f"cleaned:{name}": rows for name, rows in self.tally.cleaned.items()}
        return metrics


def _add(counts: dict[str, int], more: Mapping[str, int]) -> None:
    for name, number in more.items():
        counts[name] = counts.get(name, 0) + number


_IN_WAITING = SQL("exists (select from _waiting as w where w._load_id = b._load_id and w._row = b._row)")
_REFUSED_REASONS = SQL(
    "array(select f.reason from _refused as f where f._load_id = t._load_id and f._row = t._row order by f.reason)"
)
