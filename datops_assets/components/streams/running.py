"""A stream as a process: follows on and on, tries again when a server is away, and tells the assets what arrived."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from datops_assets.components.catalogue import open_catalogue
from datops_assets.components.streams.component import (
    CHECK,
    forget_old_changes,
    schema_changes,
    take_first_snapshot,
)
from datops_assets.components.streams.document import StreamDocument
from datops_assets.config.settings import read_settings
from datops_assets.errors import LockTakenError, RetryableError, TerminalError

if TYPE_CHECKING:
    import dagster as dg

    from datops_assets.cdc import Capture, Progress, Standing

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0


def follow_for_ever(
    document: StreamDocument,
    stopped: threading.Event,
    *,
    say: Callable[[str], None],
    every_s: float | None = None,
    report_s: float = 60.0,
) -> None:
    """Follow a stream until `stopped`, which ends it after the transaction that is whole.

    every_s     longest wait between two commits; None: what suits the way changes are found
    say         one line when something changed: reports, a server that is away
    raises      TerminalError: the stream needs a person
    """
    wait_s = _FIRST_WAIT_S
    engine = document.engine(read_settings().project_root)

    told: tuple[Mapping[str, str], bool] | None = None

    def report(progress: Progress, standing: Standing) -> None:
        nonlocal wait_s, told
        wait_s = _FIRST_WAIT_S
        has_moved = bool(progress.changes or progress.copied)
        if has_moved:
            say(f"{document.stream}: {engine.said(progress)}, at most {progress.longest_lag_s:.2f} s behind")
            tell_assets(document, progress, standing, say)
            with open_catalogue() as catalogue:
                forget_old_changes(catalogue, document)
        figures = {**standing.figures, "lag_seconds": _longest_lag_s(progress, standing)}
        over = document.limits.exceeded(figures)
        if has_moved or (standing.health, bool(over)) != told:
            told = standing.health, bool(over)
            is_sound = standing.is_sound and not over
            tell_check(
                document, say, is_sound=is_sound, why="; ".join(over), metadata={**standing.health, **figures}
            )

    while not stopped.is_set():
        try:
            _follow_once(engine, stopped, report, every_s, report_s)
        except RetryableError as error:
            if stopped.is_set():
                return
            said = (
                "waiting for it to end" if isinstance(error, LockTakenError) else f"again in {wait_s:.1f} s"
            )
            say(f"{error} ({said})")
            stopped.wait(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        except TerminalError as error:
            tell_check(document, say, is_sound=False, why=str(error), metadata={"reason": str(error)})
            raise


def _follow_once(
    engine: Capture,
    stopped: threading.Event,
    report: Callable[[Progress, Standing], None],
    every_s: float | None,
    report_s: float,
) -> None:
    from datops_assets.cdc import keep_figures, lease

    def tell(progress: Progress) -> None:
        standing = engine.standing(catalogue.conn)
        keep_figures(catalogue.conn, engine.source, standing, longest_lag_s=progress.longest_lag_s)
        report(progress, standing)

    with open_catalogue() as catalogue, lease(catalogue.conn, engine.source):
        take_first_snapshot(catalogue, engine)
        engine.stream(
            catalogue.conn, catalogue.warehouse.connect,
            stopping=stopped.is_set, every_s=every_s, report_s=report_s,
            report=tell,
        )  # fmt: skip


def _longest_lag_s(progress: Progress, standing: Standing) -> float:
    return max(progress.longest_lag_s, float(standing.figures.get("lag_seconds", 0.0)))


def tell_check(
    document: StreamDocument,
    say: Callable[[str], None],
    *,
    is_sound: bool,
    why: str,
    metadata: Mapping[str, Any],
) -> None:
    """Report how the stream stands to its check; a Dagster that does not answer does not stop the stream."""
    import dagster as dg

    evaluation = dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(["bronze", document.stream, next(iter(document.tables))]),
        check_name=CHECK,
        passed=is_sound,
        severity=dg.AssetCheckSeverity.ERROR,
        description=why or None,
        metadata=dict(metadata),
    )
    try:
        with _instance() as instance:
            instance.report_runless_asset_event(evaluation)
    except Exception as error:  # as in tell_assets
        say(f"{document.stream}: its check was not told ({type(error).__name__})")


def tell_assets(
    document: StreamDocument, progress: Progress, standing: Standing, say: Callable[[str], None]
) -> None:
    """Report to each table's assets what arrived; a Dagster that does not answer does not stop the stream."""
    import dagster as dg

    try:
        with _instance() as instance:
            for name in document.tables:
                if not progress.tables.get(name) and name not in progress.copied:
                    continue
                metadata: dict[str, Any] = {
                    **standing.figures,
                    **standing.health,
                    "applied": progress.applied,
                    "changes": progress.tables.get(name, 0),
                    "changes_per_s": progress.tables.get(name, 0) / max(progress.seconds, 0.001),
                    "lag_seconds": progress.longest_lag_s,
                }
                metadata |= schema_changes(progress, name)
                for asset in document.assets_of(name):
                    key = dg.AssetKey(["bronze", document.stream, asset])
                    instance.report_runless_asset_event(dg.AssetMaterialization(key, metadata=metadata))
    except Exception as error:  # whatever its storage says: the rows are in the warehouse all the same
        say(f"{document.stream}: the assets were not told ({type(error).__name__})")


@contextmanager
def _instance() -> Iterator[dg.DagsterInstance]:
    """Dagster's history: of DAGSTER_HOME where that is set, else the project's own."""
    import dagster as dg
    from dagster._core.errors import DagsterHomeNotSetError

    from datops_assets.components.runner import dagster_instance

    try:
        found = dg.DagsterInstance.get()
    except DagsterHomeNotSetError:
        with dagster_instance(read_settings().project_root) as own:
            yield own
        return
    with found:
        yield found
