"""A copy of the project as a newcomer has it, and its web UI: real processes, a server of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from datops_assets.config.settings import Settings
from datops_assets.resources.embedded import EmbeddedServer
from datops_assets.resources.warehouse import open_warehouse

ROOT = Path(__file__).parents[2]
PARTS = ("datops_assets", "dbt_project", "dagster.yaml", "workspace.yaml", "pyproject.toml")
DATOPS = "from datops_assets.cli import main; main()"
T = TypeVar("T")


@dataclass
class Clone:
    """A copy of the repository. Its processes see no variable but those given."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path) -> Clone:
        """Copy what a clone holds; nothing that a run left behind."""
        left_behind = shutil.ignore_patterns("__pycache__", "target", "logs", "dbt_packages")
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, folder / part, ignore=left_behind)
            else:
                shutil.copy(source, folder)
        return cls(folder)

    def variables(self, **more: str) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.folder), **self.environment, **more}

    def start(self, *command: str, **variables: str) -> subprocess.Popen[str]:
        """Start a program in the clone."""
        return subprocess.Popen(
            command, cwd=self.folder, env=self.variables(**variables),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def run(self, *command: str, **variables: str) -> str:
        """Run a program in the clone to its end, which has to be a good one; returns what it said."""
        process = self.start(*command, **variables)
        said, _ = process.communicate(timeout=240)
        assert process.returncode == 0, said
        return said

    def dagster(self, *arguments: str, **variables: str) -> str:
        return self.run(*self.dagster_command(*arguments), **variables)

    def datops(self, *arguments: str, **variables: str) -> str:
        return self.run(*self.datops_command(*arguments), **variables)

    def dagster_command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "dagster", *arguments]

    def datops_command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", DATOPS, *arguments]

    def declare(self, name: str, document: str) -> None:
        """Add a pipeline to defs/, as a newcomer does."""
        folder = self.folder / "datops_assets" / "defs" / "sources" / name
        folder.mkdir(parents=True)
        shutil.copy(self.folder / "datops_assets" / "defs" / "sources" / "shop" / "defs.yaml", folder)
        (folder / "pipeline.yaml").write_text(document)

    def put(self, path: str, content: str) -> None:
        """Write a file below .datops/landing, complete from its first moment."""
        file = self.folder / ".datops" / "landing" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(f"{file.name}.tmp")
        unfinished.write_text(content)
        unfinished.rename(file)

    def look_more_often(self, seconds: int = 2) -> None:
        """Let sensors look every few seconds, so that a test need not wait for the usual half minute."""
        for module in ("source_sensor", "automation", "alert_route"):
            file = self.folder / "datops_assets" / "components" / f"{module}.py"
            text, found = re.subn(
                r"^INTERVAL_S = \d+$", f"INTERVAL_S = {seconds}", file.read_text(), flags=re.M
            )
            assert found == 1
            file.write_text(text)

    def fetch(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the clone's own warehouse."""
        warehouse = open_warehouse(Settings(project_root=self.folder, home=self.folder / ".datops"))
        with warehouse.connect() as conn:
            try:
                return conn.execute(query).fetchall()  # type: ignore[call-overload]
            except psycopg.errors.UndefinedTable:
                return []

    def stop(self) -> None:
        """Stop the clone's server."""
        EmbeddedServer(self.folder / ".datops" / "postgres").stop()


class WebUi:
    """`dagster dev` in a clone: web server, code server and daemon."""

    def __init__(self, clone: Clone, **variables: str) -> None:
        self.port = _free_port()
        self.log = clone.folder / "dev.log"
        command = clone.dagster_command(
            "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(self.port)
        )
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=clone.folder, env=clone.variables(**variables), stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        try:
            wait_for(self._is_loaded, 120, self.log.read_text)
        except BaseException:
            self.stop()
            raise

    def ask(self, query: str, **variables: Any) -> Any:
        """Ask the GraphQL interface that the pages use; returns the one field that was asked for."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer["errors"]
        (value,) = answer["data"].values()
        return value

    def materializations(self, *path: str) -> list[dict[str, Any]]:
        """What an asset's page lists, newest first."""
        asset = self.ask(
            """query ($path: [String!]!) { assetOrError(assetKey: {path: $path}) {
                 ... on Asset { assetMaterializations(limit: 100) { runId partition } } } }""",
            path=path,
        )
        return asset.get("assetMaterializations", [])

    def runs(self) -> list[dict[str, Any]]:
        """All runs, newest first, with their tags as a dictionary."""
        found = self.ask(
            """{ runsOrError(limit: 100) { ... on Runs { results {
                 runId jobName status assetSelection { path } tags { key value } } } } }"""
        )["results"]
        for run in found:
            run["tags"] = {tag["key"]: tag["value"] for tag in run["tags"]}
        return found

    def ticks(self, sensor: str) -> list[dict[str, Any]]:
        """A sensor's ticks, newest first."""
        found = self.ask(
            """query ($name: String!) { sensorOrError(sensorSelector: {
                 repositoryName: "__repository__", repositoryLocationName: "datops", sensorName: $name}) {
                 ... on Sensor { sensorState { status ticks(limit: 50) { status skipReason runIds } } } } }""",
            name=sensor,
        )
        return found["sensorState"]["ticks"]

    def stop(self) -> None:
        """Stop as Ctrl-C does; whatever is left after that goes too."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
        # A code server that Ctrl-C met while it was starting outlives its parent.
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _is_loaded(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            entries = self.ask(
                """{ workspaceOrError { ... on Workspace { locationEntries {
                     loadStatus locationOrLoadError { __typename ... on PythonError { message } } } } } }"""
            )["locationEntries"]
        except (urllib.error.URLError, ConnectionError):
            return False
        failed = [
            entry
            for entry in entries
            if (entry["locationOrLoadError"] or {}).get("__typename") == "PythonError"
        ]
        assert not failed, failed
        return bool(entries) and all(entry["loadStatus"] == "LOADED" for entry in entries)


def wait_for(look: Callable[[], T], seconds: float, otherwise: Callable[[], object] = lambda: "") -> T:
    """Look until there is something to see; returns it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if seen := look():
            return seen
        time.sleep(0.5)
    raise AssertionError(f"nothing after {seconds} s: {otherwise()}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
