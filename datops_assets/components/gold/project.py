"""A dbt project on disk, and what is prepared from it ahead of runs.

The project folder is read and never written, so it may be part of an image. What is
prepared lies under `<home>/dbt`, one folder for each state of the project's files.
"""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from datops_assets.components.gold import graph
from datops_assets.components.gold.graph import Graph, read_graph
from datops_assets.components.gold.process import CANNOT_PARSE, start_module
from datops_assets.errors import DeclarationError, TerminalError

_NOT_SOURCE = {"target", "logs", "dbt_packages", "__pycache__"}
_KEPT_STATES = 3
_KEPT_RUNS = 10
_GRAPH = "graph.json"
_PARTIAL_PARSE = "partial_parse.msgpack"


@dataclass(frozen=True)
class DbtProject:
    """A project, the part of it that is selected, and where its artefacts go."""

    folder: Path
    home: Path
    select: str
    exclude: str

    def fingerprint(self) -> str:
        """Name the state of the files: the same files, selection and versions give the same name."""
        digest = hashlib.sha256()
        for part in (self.select, self.exclude, *_versions()):
            digest.update(part.encode() + b"\0")
        for path in self._files():
            digest.update(str(path.relative_to(self.folder)).encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()[:16]

    @property
    def prepared(self) -> Path:
        """Folder with what was prepared from the files as they are now, whether it is there or not."""
        return self.home / f"{self.folder.name}-{self.fingerprint()}"

    def graph(self) -> Graph:
        """The project as assets and checks; prepared first where it is missing or stale.

        Reading takes milliseconds, preparing about 8 s of CPU. Of several processes that
        find it missing one prepares and the others wait.

        raises  DeclarationError: there is no project, or dbt cannot parse it
        """
        prepared = self._existing() or self._prepare()
        return read_graph(prepared / _GRAPH)

    def new_run(self, run_id: str) -> Path:
        """Make the folder of one dbt run, with what dbt remembers of its last parse."""
        _prune(self.home / "runs", _KEPT_RUNS - 1)
        (self.home / "runs").mkdir(parents=True, exist_ok=True)
        target = Path(tempfile.mkdtemp(prefix=f"{run_id[:8]}-", dir=self.home / "runs"))
        remembered = self.prepared / _PARTIAL_PARSE
        if remembered.exists():
            shutil.copyfile(remembered, target / _PARTIAL_PARSE)
        return target

    def remember_parse(self, target: Path) -> None:
        """Keep what a run parsed: the next run on the same connection saves a second."""
        parsed = target / _PARTIAL_PARSE
        if parsed.exists() and self.prepared.exists():
            parsed.replace(self.prepared / _PARTIAL_PARSE)

    def _files(self) -> list[Path]:
        if not (self.folder / "dbt_project.yml").is_file():
            expected = "expected the folder of a dbt project (attribute `project`)"
            raise DeclarationError([f"{self.folder}: no dbt_project.yml here, {expected}"])
        paths = (path for path in self.folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        return sorted(path for path in paths if not _NOT_SOURCE & set(path.relative_to(self.folder).parts))

    def _existing(self) -> Path | None:
        return self.prepared if (self.prepared / _GRAPH).is_file() else None

    def _prepare(self) -> Path:
        with _locked(self.home):
            existing = self._existing()
            if existing is not None:
                return existing
            destination = self.prepared
            _prune(self.home, keep=0, prefix="preparing-")  # of a process that was killed here
            _prune(self.home, keep=_KEPT_STATES - 1, prefix=f"{self.folder.name}-")
            work = Path(tempfile.mkdtemp(prefix="preparing-", dir=self.home))
            try:
                self._parse(work)
                shutil.rmtree(destination, ignore_errors=True)  # one without a graph is of no use
                work.chmod(0o755)  # an image is built by one account and run by another
                work.rename(destination)
            finally:
                shutil.rmtree(work, ignore_errors=True)
            return destination

    def _parse(self, work: Path) -> None:
        arguments = [str(self.folder), str(work), self.select, self.exclude]
        process = start_module("datops_assets.components.gold.prepare", arguments, work)
        said, _ = process.communicate()
        if process.returncode == CANNOT_PARSE:
            raise DeclarationError([f"{self.folder}: dbt cannot parse this project\n{said.strip()}"])
        if process.returncode != 0:
            raise TerminalError(f"preparing {self.folder} failed\n{said.strip()}")


def _versions() -> tuple[str, ...]:
    packages = ("dagster-dbt", "dbt-core", "dbt-postgres")
    return (inspect.getsource(graph), *(f"{package}=={metadata.version(package)}" for package in packages))


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    try:
        home.mkdir(parents=True, exist_ok=True)
        file = (home / "lock").open("w")
    except OSError as problem:
        raise TerminalError(
            f"the dbt project is not prepared and {home} cannot be written ({problem.strerror}); "
            "prepare it where the image is built: dagster definitions validate"
        ) from problem
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _prune(folder: Path, keep: int, prefix: str = "") -> None:
    if not folder.is_dir():
        return
    found = sorted(folder.glob(f"{prefix}*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found[keep:]:
        shutil.rmtree(path, ignore_errors=True)
