"""Whatever happens to files, runs and loads: what is live is what a small model says, and silver follows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from datops_assets.ingestion import FilePartition, FileSource, Landing, Unit, reload_load, undo_load
from datops_assets.ingestion.source import Delivery
from datops_assets.quality import Contract, judge_table
from datops_assets_tests.ingestion.conftest import Lab

_numbers = itertools.count(1)
NAMES = ["a.csv", "b.csv", "c.csv", "d.csv"]
DAYS = ["2026-01-01_1.csv", "2026-01-01_2.csv", "2026-01-02_1.csv", "2026-01-02_2.csv"]
CONTRACT = Contract.model_validate(
    {"key": ["id"], "columns": {"id": {"type": "text"}, "version": {"type": "integer"}}}
)


@dataclass
class File:
    """A file as it lies there."""

    version: int
    broken: bool = False
    waiting: bool = False


@dataclass
class Whole:
    """One delivery: per path the versions that were live, the last one is; and what left when it was renewed."""

    paths: dict[str, list[int]]
    members: set[str]
    below: Whole | None
    renewals: list[tuple[set[int], dict[str, list[int]]]] = field(default_factory=list)
    """Of each renewal the versions that came, and the paths that were there no more."""

    def standing(self) -> set[int]:
        """Versions that are live, or would be if others were undone."""
        stacks = [*self.paths.values(), *(stack for _, left in self.renewals for stack in left.values())]
        return {version for stack in stacks for version in stack}


class Model:
    """What is live where paths name no day."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        self.seen: dict[str, int] = {}
        self.tried: set[str] = set()
        self.staged: dict[str, int] = {}
        self.newest: Whole | None = None

    def live(self) -> dict[str, int]:
        return {path: stack[-1] for path, stack in self.newest.paths.items()} if self.newest else {}

    def missing(self) -> set[str]:
        return {
            path for path, file in self.files.items() if self.seen.get(path) != file.version or file.broken
        }

    def run(self) -> None:
        for path, file in self.files.items():
            if not file.waiting and self.seen.get(path) != file.version:
                self.seen[path] = file.version
                if self.live().get(path) != file.version:
                    self.tried.add(path)
                    if not file.broken:
                        self.staged[path] = file.version
        self.staged = {
            path: version for path, version in self.staged.items() if self.is_current(path, version)
        }
        if self.staged and not self.held():
            self.swap(self.staged)
            self.staged, self.tried = {}, set()

    def is_current(self, path: str, version: int) -> bool:
        return path in self.files and self.files[path].version == version

    def held(self) -> bool:
        return bool(self.missing())

    def swap(self, brought: dict[str, int]) -> None:
        if self.newest is None or self.newest.members.isdisjoint(brought):
            paths = {path: [version] for path, version in brought.items()}
            self.newest = Whole(paths, {*paths, *self.tried}, self.newest)
            return
        left = {p: s for p, s in self.newest.paths.items() if p not in self.files and p not in brought}
        for path in left:
            del self.newest.paths[path]
        for path, version in brought.items():
            self.newest.paths.setdefault(path, []).append(version)
        self.newest.members |= {*brought, *self.tried}
        self.newest.renewals.append((set(brought.values()), left))

    def undo(self, path: str) -> None:
        assert self.newest is not None
        self.newest.paths[path].pop()
        if not self.newest.paths[path]:
            del self.newest.paths[path]
        while self.newest.renewals:
            came, left = self.newest.renewals[-1]
            if came & self.newest.standing():
                break
            self.newest.renewals.pop()
            for back, stack in left.items():
                self.newest.paths.setdefault(back, stack)
        if not self.newest.paths:
            self.newest = self.newest.below


class DayModel(Model):
    """What is live where paths name a day: that of the newest day."""

    def __init__(self) -> None:
        super().__init__()
        self.stacks: dict[str, list[int]] = {}

    def live(self) -> dict[str, int]:
        newest = max((path[:10] for path in self.stacks), default="")
        return {path: stack[-1] for path, stack in self.stacks.items() if path[:10] == newest}

    def is_current(self, path: str, version: int) -> bool:
        return path not in self.files or self.files[path].version == version

    def held(self) -> bool:
        missing = {path[:10] for path in self.missing()}
        return bool(missing) and max(missing) >= max(path[:10] for path in (*self.stacks, *self.staged))

    def swap(self, brought: dict[str, int]) -> None:
        for path, version in brought.items():
            self.stacks.setdefault(path, []).append(version)

    def undo(self, path: str) -> None:
        self.stacks[path].pop()
        if not self.stacks[path]:
            del self.stacks[path]


class Killed(BaseException):
    """What kill -9 looks like to the catalogue: nothing more is written."""


class DyingSource(FileSource):
    """Files during whose loading the process dies."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def open(self, unit: Unit) -> Delivery:
        if self.after == 0:
            raise Killed
        self.after -= 1
        return super().open(unit)


class Player:
    """Plays steps on the warehouse and on the model."""

    def __init__(self, lab: Lab, folder: Path, disposition: Any, by_day: bool) -> None:
        self.model: Model = DayModel() if by_day else Model()
        self.paths = DAYS if by_day else NAMES
        folder.mkdir()
        name = folder.name
        partition = FilePartition(r"(\d{4}-\d\d-\d\d)") if by_day else None
        landing = Landing(done_marker="{name}.done")
        declared = replace(lab.table, name=name, root=folder, disposition=disposition, partition=partition)
        self.lab = replace(lab, folder=folder, table=replace(declared, pattern="*.csv", landing=landing))
        self.conn = lab.warehouse.conn

    def write(self, which: int, what: str) -> None:
        """Deliver a file with new content: whole, broken, or not to its end yet."""
        path = self.paths[which]
        version = next(_numbers)
        self.model.files[path] = File(version, broken=what == "broken", waiting=what == "waiting")
        self._put(path)

    def deliver(self, *which: int) -> None:
        """Write some files whole, and load what is there."""
        for each in which:
            self.write(each, "whole")
        self.run()

    def _put(self, path: str) -> None:
        file = self.model.files[path]
        text = f"id,version\n{path},{file.version}\n{path}-{file.version},{file.version}\n"
        self.lab.write(path, b"\xff\n" + text.encode() if file.broken else text)
        self._mark(path)

    def _mark(self, path: str) -> None:
        marker = self.lab.folder / f"{path}.done"
        marker.unlink(missing_ok=True) if self.model.files[path].waiting else marker.touch()

    def complete(self, which: int) -> None:
        """What was waiting is there now."""
        path = self.paths[which]
        if path in self.model.files:
            self.model.files[path].waiting = False
            self._mark(path)

    def back(self, which: int) -> None:
        """The content that is live comes back, whatever came meanwhile."""
        path = self.paths[which]
        if path in self.model.live():
            self.model.files[path] = File(self.model.live()[path])
            self._put(path)

    def touch(self, which: int) -> None:
        path = self.paths[which]
        if path in self.model.files and not self.model.files[path].waiting:
            (self.lab.folder / path).touch()

    def remove(self, which: int) -> None:
        path = self.paths[which]
        if self.model.files.pop(path, None):
            (self.lab.folder / path).unlink()

    def run(self) -> None:
        self.model.run()
        self.lab.load()
        self.check()

    def killed(self, after: int) -> None:
        """The process dies while it loads a file; the next run ends as if nothing had happened."""
        try:
            self.lab.load(source=DyingSource(after))
        except Killed:
            pass
        self.run()

    def undo(self, which: int) -> None:
        for path in self._of(which, self.model.live()):
            undo_load(self.conn, self._load_id(path, "loaded"))
            self.model.undo(path)
            self.check()

    def undo_staged(self, which: int) -> None:
        for path in self._of(which, self.model.staged):
            undo_load(self.conn, self._load_id(path, "staged"))
            del self.model.staged[path]
            self.check()

    def undo_and_reload(self, which: int) -> None:
        """Taken out and let in again at once: the next run loads the file once more."""
        for path in self._of(which, self.model.live()):
            file = self.model.files.get(path)
            if file is None or file.waiting or file.version != self.model.live()[path]:
                continue
            load_id = self._load_id(path, "loaded")
            undo_load(self.conn, load_id)
            reload_load(self.conn, load_id)
            self.model.undo(path)
            del self.model.seen[path]
            self.check()

    def judge(self) -> None:
        judge_table(
            self.conn, source="shop", table=self.lab.table.name, contract=CONTRACT,
            disposition=self.lab.table.disposition,
        )  # fmt: skip
        found = self.lab.warehouse.fetch(f"select id, version from silver.shop_{self.lab.table.name}")
        assert sorted(found) == sorted(
            (id_, version)
            for path, version in self.model.live().items()
            for id_ in (path, f"{path}-{version}")
        )

    def check(self) -> None:
        """Compare what is live, and what waits for the rest of its delivery."""
        by_load = {load.load_id: load for load in self.lab.loads()}
        table = f"bronze.shop_{self.lab.table.name}"
        versions = dict(
            self.lab.warehouse.fetch(
                f"select _load_id, min(to_jsonb(b) ->> 'version') from {table} b group by 1"
            )
        )
        for state, expected in (("loaded", self.model.live()), ("staged", self.model.staged)):
            entered = [
                (load.path, int(versions[number])) for number, load in by_load.items() if load.state == state
            ]
            assert sorted(entered) == sorted(expected.items())

    def _of(self, which: int, paths: dict[str, int]) -> Iterator[str]:
        """One of some paths; none where there are fewer."""
        yield from sorted(paths)[which : which + 1]

    def _load_id(self, path: str, state: str) -> str:
        (found,) = (load for load in self.lab.loads() if (load.path, load.state) == (path, state))
        return str(found.load_id)


WHICH = st.integers(0, 3)
DELIVER = st.lists(WHICH, min_size=1, max_size=3, unique=True).map(lambda which: ("deliver", *which))
WRITE = st.tuples(st.just("write"), WHICH, st.sampled_from(["whole", "broken", "waiting"]))
ELSE = st.tuples(st.sampled_from(["complete", "back", "touch", "remove", "remove"]), WHICH)
UNDO = st.tuples(st.sampled_from(["undo", "undo", "undo_staged", "undo_and_reload"]), st.integers(0, 2))
OTHER = st.one_of(st.tuples(st.just("killed"), st.integers(0, 2)), st.tuples(st.just("judge")))
RUN = st.tuples(st.just("run"))
STEPS = st.lists(st.one_of(DELIVER, DELIVER, WRITE, ELSE, UNDO, OTHER, RUN), min_size=8, max_size=24)
MENDED = [("remove", 1), ("run",)]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(disposition=st.sampled_from(["replace", "snapshot"]), by_day=st.booleans(), steps=STEPS)
@example(
    "replace",
    False,
    [("deliver", 0, 1), ("deliver", 2, 3), ("deliver", 2), *[("undo", n) for n in (1, 0, 0)]],
)
@example("replace", False, [("deliver", 0, 1), ("deliver", 2), ("touch", 0), ("run",)])
@example(
    "snapshot", False, [("deliver", 0, 1, 2), ("remove", 2), ("deliver", 0, 1), ("undo", 0), ("undo", 1)]
)
@example("snapshot", True, [("deliver", 0, 1, 2), ("deliver", 0), ("undo", 0), ("undo", 0)])
@example("replace", False, [("write", 1, "broken"), ("deliver", 0), ("remove", 1), ("run",), ("deliver", 1)])
@example(
    "replace", False, [("deliver", 0), ("write", 1, "broken"), *[("deliver", 0)] * 2, *MENDED, ("undo", 0)]
)
@example(
    "replace",
    False,
    [("deliver", 0, 1), ("write", 1, "broken"), ("run",), ("back", 1), ("deliver", 2), ("deliver", 0)],
)
def test_what_is_live_follows_from_what_was_delivered(
    lab: Lab, disposition: str, by_day: bool, steps: list[tuple[Any, ...]]
) -> None:
    """After every run and every undo, in bronze; wherever it is judged, in silver."""
    player = Player(lab, lab.folder / f"t{next(_numbers)}", disposition, by_day)
    for name, *values in (*steps, ("run",), ("judge",)):
        getattr(player, name)(*values)
