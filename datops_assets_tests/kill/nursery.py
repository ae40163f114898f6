"""A process that has imported everything and makes others of itself: one that is to die costs no import.

Reads one JSON document a line and answers the new process's id at once, and how it ended when it
ended. Runs as `python nursery.py`. What may be wished for:

    cwd, environ, arguments    what to run and where
    failpoint, hits            die when a failpoint is passed for the n-th time
    function                   die when a function of ours is called for the `hits`-th time
    record                     write the names of the functions that were called into this file
"""

from __future__ import annotations

import atexit
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType

import dagster as dg
import sqlglot.dialects.postgres  # noqa: F401 as below

import datops_assets.components.runner
import datops_assets.ingestion.arrow_load
import datops_assets.quality  # noqa: F401 what a run imports, imported once
from datops_assets.cli import main
from datops_assets.components.sources import document_models
from datops_assets.postgres import failpoints

WORKING = re.compile(r"/datops_assets/((?:ingestion|quality|postgres)/\w+)\.py$")
ProfileFunction = Callable[[FrameType, str, object], None]
called: dict[str, None] = {}


def name_of(frame: FrameType) -> str | None:
    """Name a function that works on the warehouse; None for any other."""
    match = WORKING.search(frame.f_code.co_filename)
    return f"{match[1]}:{frame.f_code.co_qualname}" if match else None


def note(frame: FrameType, event: str, _: object) -> None:
    """Remember which functions are called."""
    if event == "call" and (name := name_of(frame)) is not None:
        called[name] = None


def die_in(function: str, spared: Iterator[int], frame: FrameType, event: str, _: object) -> None:
    """End this process where a function begins, unless this call is spared."""
    if event == "call" and name_of(frame) == function and next(spared, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)


def watch(calls: ProfileFunction | None) -> None:
    """Hand every call of this thread and of later ones to a function."""
    threading.setprofile(calls)  # type: ignore[arg-type]
    sys.setprofile(calls)


def live(wish: dict) -> None:
    """Be the command that was wished for; die where it was said, if anywhere."""
    os.chdir(wish["cwd"])
    os.environ.clear()
    os.environ.update(wish["environ"])
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if wish["failpoint"]:
        failpoints.arm(wish["failpoint"], wish["hits"])
    if wish["function"]:
        watch(partial(die_in, wish["function"], iter(range(1, wish["hits"]))))
    if wish["record"]:
        watch(note)
        atexit.register(lambda: Path(wish["record"]).write_text("\n".join(called)))
    sys.argv = ["datops", *wish["arguments"]]
    try:
        main()
    except SystemExit as end:
        watch(None)
        atexit._run_exitfuncs()
        os._exit(end.code if isinstance(end.code, int) else 1)
    os._exit(0)


with dg.DagsterInstance.ephemeral():  # a run's instance and models import and make as much as all the rest
    document_models()
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        live(json.loads(line))
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
