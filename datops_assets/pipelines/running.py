"""A run in a process of its own: started, looked at, waited for, cancelled.

The process is `datops pipeline run --config …`, so a run from Python is the run of the command: the
same history in Dagster, the same end by Ctrl-C. A run in this process could not be cancelled: a
statement under way ends with its process only.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datops_assets.errors import TerminalError
from datops_assets.pipelines.words import RunState

if TYPE_CHECKING:
    from datops_assets.components.runner import PipelineRun

_CANCELLED = 130
_END_WITHIN_S = 20
"""How long a cancelled run may take to say so in Dagster's history, before it is killed."""


class ExecutionError(TerminalError):
    """A run did not come to an end of its own: it could not begin, was cancelled, or its process died.

    Next: start the run again; what it loaded stays, and is not loaded twice.
    """


@dataclass(frozen=True)
class ExecutionContext:
    """Where and on what a run works.

    project_root   folder that relative paths start from; by default that of the current folder
    tables         only these, and what is made of them
    partition      only this day
    """

    project_root: Path | None = None
    tables: tuple[str, ...] = ()
    partition: str | None = None


class Execution:
    """One run in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], folder: tempfile.TemporaryDirectory[str]) -> None:
        self._process = process
        self._folder = folder
        self._cancelled = False
        self._said: tuple[str, str] | None = None

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def status(self) -> RunState:
        """Where it stands now; never waits."""
        code = self._process.poll()
        if code is None:
            return RunState.RUNNING
        if code == _CANCELLED or self._cancelled:
            return RunState.CANCELLED
        return RunState.SUCCEEDED if code == 0 else RunState.FAILED

    def wait(self, timeout_s: float | None = None) -> PipelineRun:
        """Wait for the end, and say what the run did; a run whose steps failed says so in the result.

        raises    TimeoutError: it still runs after so many seconds
                  ExecutionError: it was cancelled, or said nothing
        """
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"the run still works after {timeout_s:g} s (process {self.pid})") from None
        if self.status() is RunState.CANCELLED:
            raise ExecutionError(
                "the run was cancelled; what it had committed stays, the next run goes on there"
            )
        said, problems = self._read()
        try:
            return _result(json.loads(said))
        except (ValueError, TypeError, KeyError):
            told = (
                _told(said) or problems.strip() or f"its process ended with code {self._process.returncode}"
            )
            raise ExecutionError(f"the run did not come to an end: {told}") from None

    def cancel(self) -> RunState:
        """End the run as Ctrl-C does: its transactions roll back, Dagster shows it as cancelled.

        returns   how it stands then: one that had ended before stays as it was
        """
        if self._process.poll() is None:
            self._cancelled = True
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_END_WITHIN_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        return self.status()

    def _read(self) -> tuple[str, str]:
        if self._said is None:
            folder = Path(self._folder.name)
            self._said = (folder / "out").read_text("utf-8"), (folder / "err").read_text("utf-8")
        return self._said


# Whoever was started in the background by a shell ignores SIGINT, and so would the child that is to be cancelled by it.
LISTENS = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"


def start(document: Path | str, project_root: Path, context: ExecutionContext) -> Execution:
    """Start the process.

    document   the YAML's path, or its text
    """
    folder = tempfile.TemporaryDirectory(prefix="datops-run-")
    path = document if isinstance(document, Path) else Path(folder.name) / "pipeline.yaml"
    if isinstance(document, str):
        path.write_text(document, encoding="utf-8")
    arguments = ["pipeline", "run", "--config", str(path), "--json"]
    for table in context.tables:
        arguments += ["--table", table]
    if context.partition is not None:
        arguments += ["--partition", context.partition]
    # The child finds what this process finds: a document may name functions by their import path.
    begin = f"{LISTENS}; import sys; sys.path[:] = {sys.path!r}; from datops_assets.cli import main; main()"
    with (Path(folder.name) / "out").open("wb") as out, (Path(folder.name) / "err").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-c", begin, *arguments],
            cwd=project_root,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,  # a Ctrl-C in the terminal is for whoever waits; cancel() is for it
        )
    return Execution(process, folder)


async def run_elsewhere(execution: Execution) -> PipelineRun:
    """Wait for a run without holding the event loop; cancelled itself, it cancels the run."""
    try:
        while execution.status() is RunState.RUNNING:
            await asyncio.sleep(0.1)
    except asyncio.CancelledError:
        await asyncio.to_thread(execution.cancel)
        raise
    return execution.wait()


def _result(said: dict[str, Any]) -> PipelineRun:
    from datops_assets.components.runner import PipelineRun, TableRun, TransformRun

    tables = [TableRun(**table) for table in said.pop("tables")]
    made = [TransformRun(**each) for each in said.pop("transforms")]
    return PipelineRun(tables=tables, transforms=made, **said)


def _told(said: str) -> str | None:
    """The sentence of an error that the command answered with."""
    try:
        answer = json.loads(said)
    except ValueError:
        return None
    error = answer.get("error") if isinstance(answer, dict) else None
    return str(error["message"]) if error else None
