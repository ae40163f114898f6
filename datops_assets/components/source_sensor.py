"""One sensor a source: it starts a run when something is new, and says why when it does not."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from datops_assets.components.bronze import keys_of
from datops_assets.components.catalogue import open_catalogue
from datops_assets.components.document import PipelineDocument
from datops_assets.components.plans import loads_to_judge
from datops_assets.components.sources import declared_table, kind_of, open_source
from datops_assets.errors import DatopsError

if TYPE_CHECKING:
    from datops_assets.ingestion import PlannedLoad

INTERVAL_S = 30
LONGEST_WAIT_S = 3600
_UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass(frozen=True)
class _Seen:
    """What is there to do for a source, and what is not."""

    new: list[PlannedLoad]
    waiting: list[PlannedLoad]
    to_judge: list[int]
    """Loads that bronze has and silver does not, or the other way round: a run ended between the two."""

    @property
    def digest(self) -> str:
        """The same work gives the same digest."""
        parts = [f"{planned.path}\0{planned.unit.fingerprint}" for planned in self.new]
        parts += [str(load_id) for load_id in self.to_judge]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def __str__(self) -> str:
        counts = {"file(s) are new": len(self.new), "load(s) wait to be judged": len(self.to_judge)}
        return " and ".join(f"{count} {what}" for what, count in counts.items() if count)


def is_watched(document: PipelineDocument) -> bool:
    """Whether a look at the source tells cheaply if something is new."""
    return kind_of(document).watched is not None


def source_sensor(document: PipelineDocument, job_name: str) -> dg.SensorDefinition:
    """The sensor of one source. One run takes all that is new; the same news start it once.

    The cursor holds a digest of the work that the last run was asked to do and how often it
    was asked for: files that stay new because their runs fail are asked for again with
    doubling waits, from 30 s up to an hour.
    """
    what = kind_of(document).watched
    running = document.sensor == "running"

    @dg.sensor(
        name=f"{document.pipeline}_{what}",
        job_name=job_name,
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED,
        description=f"Starts {job_name} when {what} of {document.pipeline} are new.",
    )
    def watch(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        filters = dg.RunsFilter(job_name=job_name, statuses=_UNDER_WAY)
        if context.instance.get_runs_count(filters):
            return dg.SkipReason(
                f"a run of {job_name} is under way; it takes what is new, or the next one does"
            )
        try:
            seen = _look(document)
        except DatopsError as error:
            return dg.SkipReason(f"cannot look for {what}: {error}")
        if not (seen.new or seen.to_judge):
            return dg.SkipReason(_why_nothing(document, seen.waiting))
        return _request(context, document, seen)

    return watch


def _look(document: PipelineDocument) -> _Seen:
    from datops_assets.ingestion import plan_load

    new: list[PlannedLoad] = []
    waiting: list[PlannedLoad] = []
    with open_catalogue() as catalogue, open_source(document, catalogue.settings.project_root) as source:
        for name in document.tables:
            table = declared_table(document, name, catalogue.settings.project_root)
            for planned in plan_load(catalogue.conn, source, table):
                # What only reading tells would start a run at every look.
                is_news = planned.action != "skip" and planned.fingerprint is not None
                (new if is_news else waiting).append(planned)
        return _Seen(new, waiting, loads_to_judge(catalogue, document))


def _request(
    context: dg.SensorEvaluationContext, document: PipelineDocument, seen: _Seen
) -> dg.SensorResult | dg.SkipReason:
    last = json.loads(context.cursor) if context.cursor else {}
    asked = last["asked"] if last.get("digest") == seen.digest else 0
    wait_s = min(INTERVAL_S * 2**asked, LONGEST_WAIT_S) if asked else 0
    since_s = time.time() - last.get("at", 0)
    if since_s < wait_s:
        return dg.SkipReason(
            f"{seen}, but the last {asked} run(s) for them did not take them; "
            f"next try in {wait_s - since_s:.0f} s. See the failed run, then `datops load list`"
        )
    context.log.info(f"{seen}" + (f", e.g. {seen.new[0].path}" if seen.new else ""))
    return dg.SensorResult(
        run_requests=[
            # Named one by one, so that automation knows that this run makes silver too.
            dg.RunRequest(tags={"datops/new_files": str(len(seen.new))}, asset_selection=keys_of(document))
        ],
        cursor=json.dumps({"digest": seen.digest, "asked": asked + 1, "at": time.time()}),
    )


def _why_nothing(document: PipelineDocument, waiting: list[PlannedLoad]) -> str:
    if not waiting:
        return f"nothing found in {document.source.shown}; expected {_delivered(document)}"
    reasons = Counter(planned.reason for planned in waiting)
    return "nothing new: " + ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(5))


def _delivered(document: PipelineDocument) -> str:
    names = [table.delivered_as for table in document.tables.values()]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
