"""Running a document from the command line: the same assets, in this process, in Dagster's history."""

from __future__ import annotations

import logging
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from datops_assets.components.bronze import LEFT_OUT, keys_of
from datops_assets.components.catalogue import Catalogue, open_catalogue
from datops_assets.components.document import PipelineDocument
from datops_assets.components.partitions import daily_partitions, first_day
from datops_assets.components.pipeline import job_definitions, job_name
from datops_assets.components.plans import nothing_yet
from datops_assets.errors import DeclarationError

if TYPE_CHECKING:
    from dagster import ExecuteInProcessResult

_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
OnStep = Callable[[str, bool], None]
"""Told the name of a step, and whether it is over."""
_STEP_IS_OVER = {"STEP_START": False, "STEP_SUCCESS": True, "STEP_FAILURE": True, "STEP_SKIPPED": True}


@dataclass(frozen=True)
class TableRun:
    """What one run did to one table."""

    table: str
    files_loaded: int = 0
    rows_added: int = 0
    damaged_records: int = 0
    files_refused: list[str] = field(default_factory=list)
    rows_judged: int = 0
    rows_passed: int = 0
    rows_quarantined: int = 0
    silver_rows: int | None = None
    score: float | None = None
    failed_checks: list[dict[str, Any]] = field(default_factory=list)
    """Of each its `check`, `severity`, `rows_failed` and `rows_judged`; `warn` let the rows pass."""
    blocked: bool = False


@dataclass(frozen=True)
class TransformRun:
    """What one run did to one transformation."""

    table: str
    rows: int
    seconds: float


@dataclass(frozen=True)
class PipelineRun:
    """What one run did; `problems` holds a sentence for each step that failed, `notes` what else to know."""

    pipeline: str
    run_id: str
    success: bool
    seconds: float
    tables: list[TableRun]
    problems: list[str]
    notes: list[str] = field(default_factory=list)
    transforms: list[TransformRun] = field(default_factory=list)


@contextmanager
def dagster_instance(project_root: Path) -> Iterator[dg.DagsterInstance]:
    """The instance that `dagster.yaml` of the project names: what the web UI shows."""
    if not (project_root / "dagster.yaml").is_file():
        with dg.DagsterInstance.ephemeral() as instance:
            yield instance
        return
    with dg.DagsterInstance.from_config(str(project_root)) as instance:
        yield instance


def run_pipeline(
    document: PipelineDocument,
    project_root: Path,
    *,
    tables: Sequence[str] = (),
    partition: str | None = None,
    on_step: OnStep | None = None,
) -> PipelineRun:
    """Load and judge what is new of one document.

    tables     only these; unknown names are refused
    partition  of the tables that have days only this one, judged again from bronze
    on_step    told of each step that begins, and that ended
    raises     DeclarationError: an unknown table or day. Anything that goes wrong in a step is in the result.
    """
    require_tables(document, tables)
    if partition is not None:
        _require_day(document, tables, partition)
    with warnings.catch_warnings(), dagster_instance(project_root) as instance:
        warnings.simplefilter("ignore")
        here = dg.Definitions(executor=dg.in_process_executor, loggers={"console": _step_logger(on_step)})
        steps = dg.Definitions.merge(job_definitions(document, by_day=partition is not None), here)
        result = execute_quietly(
            steps.resolve_job_def(job_name(document)),
            instance,
            asset_selection=keys_of(document, tables),
            partition_key=partition,
            tags={"datops/started_by": "datops pipeline run"},
        )
    with open_catalogue(project_root) as catalogue:
        return summarize(catalogue, document, result.run_id, result, tables)


def _require_day(document: PipelineDocument, tables: Sequence[str], day: str) -> None:
    """Refuse a day that none of the tables has.

    raises    DeclarationError: no table has days, or the day is none of theirs
    """
    chosen = {name: document.tables[name] for name in tables or document.tables}
    days = next((days for table in chosen.values() if (days := daily_partitions(document, table))), None)
    if days is None:
        names = ", ".join(f"{document.pipeline}.{name}" for name in chosen)
        raise DeclarationError([f"{names}: no days to choose from, expected `partition:` in the document"])
    if not days.has_partition_key(day):
        known = f"{first_day(document)} to today (UTC)"
        raise DeclarationError([f"{day} is no day of {document.pipeline}, expected {known}"])


class _StepHandler(logging.Handler):
    """Hears every event of a run from Dagster's own logging."""

    def __init__(self, on_step: OnStep) -> None:
        super().__init__()
        self._on_step = on_step

    def emit(self, record: logging.LogRecord) -> None:
        event: dg.DagsterEvent | None = getattr(record, "dagster_event", None)
        if event is not None and event.step_key and event.event_type_value in _STEP_IS_OVER:
            self._on_step(event.step_key, _STEP_IS_OVER[event.event_type_value])


def _step_logger(on_step: OnStep | None) -> dg.LoggerDefinition:
    """Stands in the console's place: prints nothing, and tells of steps."""

    @dg.logger({"log_level": dg.Field(str, is_required=False)})
    def steps(_: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("datops.steps")
        logger.addHandler(_StepHandler(on_step) if on_step else logging.NullHandler())
        return logger

    return steps


def execute_quietly(
    job: dg.JobDefinition, instance: dg.DagsterInstance, **options: Any
) -> ExecuteInProcessResult:
    """Run a job in this process; what fails is in the result, not raised, and not printed twice.

    raises     KeyboardInterrupt: Ctrl-C. The run is over in Dagster's history; the caller ends the
               process, and with it the statements under way: the server rolls them back.
    """
    # Dagster takes SIGINT over in the main thread, tries the step again and goes on. So it works
    # in another one, and the main thread hears Ctrl-C.
    run_id = str(uuid.uuid4())
    ended: Future[ExecuteInProcessResult] = Future()

    def work() -> None:
        try:
            ended.set_result(
                job.execute_in_process(
                    instance=instance, run_config=_QUIET, raise_on_error=False, run_id=run_id, **options
                )
            )
        except BaseException as error:
            ended.set_exception(error)

    threading.Thread(target=work, name="datops run", daemon=True).start()
    try:
        return ended.result()
    except KeyboardInterrupt:
        run = instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            instance.report_run_canceled(run, message="interrupted by Ctrl-C")
        raise


def problems_of(result: ExecuteInProcessResult) -> list[str]:
    """A sentence for each step that failed, the innermost cause where it is not ours."""
    return [_problem(event) for event in result.all_events if event.is_step_failure]


def summarize(
    catalogue: Catalogue,
    document: PipelineDocument,
    run_id: str,
    result: ExecuteInProcessResult,
    tables: Sequence[str] = (),
) -> PipelineRun:
    """Read from the catalogue what a run did."""
    rows = table_runs(catalogue, document, run_id, tables)
    notes = [
        f"{document.pipeline}.{name}: {missing}"
        for name in tables or document.load_order()
        if (missing := nothing_yet(catalogue, document, name))
    ]
    said = catalogue.conn.execute(_SAID, [run_id])
    notes += [f"{document.pipeline}.{table}: {sentence}" for table, sentence in said]
    notes += _left_out(result)
    built = catalogue.conn.execute(_BUILT, (document.pipeline, run_id)).fetchall()
    made = [TransformRun(*row) for row in built]
    return PipelineRun(document.pipeline, run_id, result.success, 0.0, rows, problems_of(result), notes, made)


def _left_out(result: ExecuteInProcessResult) -> list[str]:
    """A sentence for each table with rows at its source that no later run brings."""
    notes = []
    for event in result.get_asset_materialization_events():
        made = event.materialization
        if (counted := made.metadata.get(LEFT_OUT)) is not None:
            notes.append(
                f"{'.'.join(made.asset_key.path[1:])}: {counted.value} row(s) at the source have no value in the"
                " cursor: the first load took those there were, later ones and changes to them never arrive;"
                " give them a value there, or read the table whole"
            )
    return notes


def table_runs(
    catalogue: Catalogue, document: PipelineDocument, run_id: str, tables: Sequence[str] = ()
) -> list[TableRun]:
    """Read from the catalogue what a run did to some tables of a document, or to all."""
    return [
        _table_run(catalogue, document.pipeline, name, run_id) for name in tables or document.load_order()
    ]


def _problem(event: dg.DagsterEvent) -> str:
    data: Any = event.step_failure_data
    failure = data.user_failure_data
    if failure is not None and failure.description:
        return str(failure.description)
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return f"{event.step_key}: {error.message.strip() if error else 'failed'}"


def _table_run(catalogue: Catalogue, source: str, name: str, run_id: str) -> TableRun:
    row = catalogue.conn.execute(_TABLE_RUN, {"source": source, "name": name, "run_id": run_id}).fetchone()
    assert row is not None
    return TableRun(name, *row)


_TABLE_RUN = """
with wanted as (
    select table_id from datops.tables where source = %(source)s and name = %(name)s
), taken as (
    select count(*) filter (where state in ('loaded', 'superseded')) as files,
           coalesce(sum(rows) filter (where state in ('loaded', 'superseded')), 0)::bigint as rows,
           coalesce(sum(damaged_rows) filter (where state in ('loaded', 'superseded')), 0)::bigint as damaged,
           coalesce(array_agg(case when starts_with(error, path) then error
                                   else path || ': ' || coalesce(error, state) end order by load_id)
                    filter (where state in ('failed', 'refused') or state = 'interrupted' and is_last), '{}') as refused
    from (
        -- A try of the step that was interrupted says nothing where a later one took the file.
        select l.*, load_id = max(load_id) over (partition by path) as is_last
        from datops.loads as l join wanted using (table_id)
        where run_id = %(run_id)s
    ) as tried
), judged as (
    select judgement_id, rows_judged, rows_passed, rows_quarantined, rows_total, score, state
    from datops.judgements join wanted using (table_id)
    where run_id = %(run_id)s
    order by judgement_id desc limit 1
), failed as (
    select coalesce(json_agg(json_build_object('check', check_name, 'severity', severity,
                                               'rows_failed', c.rows_failed, 'rows_judged', c.rows_judged)
                             order by severity = 'warn', check_name), '[]') as checks
    from datops.check_results c join judged using (judgement_id) where not passed
)
select taken.files, taken.rows, taken.damaged, taken.refused,
       coalesce(judged.rows_judged, 0), coalesce(judged.rows_passed, 0), coalesce(judged.rows_quarantined, 0),
       case when judged.state = 'judged' then judged.rows_total end, judged.score, failed.checks,
       coalesce(judged.state = 'blocked', false)
from taken left join judged on true cross join failed
"""


_BUILT = """
select name, rows, seconds from datops.builds join datops.tables using (table_id)
where source = %s and run_id = %s order by build_id
"""


# What a check had to say beyond its count; once a table, though several checks may say it.
_SAID = """
select distinct t.name, c.detail ->> 'said' as said
from datops.check_results c join datops.judgements j using (judgement_id) join datops.tables t using (table_id)
where j.run_id = %s and c.column_name is not null and c.detail ->> 'said' is not null
order by 1, 2
"""


def require_tables(document: PipelineDocument, tables: Sequence[str]) -> None:
    """Refuse names that are no tables of the document.

    raises     DeclarationError
    """
    unknown = [name for name in tables if name not in document.tables]
    if unknown:
        known = ", ".join(document.tables)
        raise DeclarationError(
            [f"{document.pipeline} has no table {', '.join(unknown)}, expected one of: {known}"]
        )
