"""Silver = f(live loads of bronze, contract version), however the loads came, left and were judged."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from datops_assets.quality import (
    Contract,
    drop_quarantined,
    judge_partitions,
    plan_judgement,
    rebuild_table,
    replay_quarantine,
)
from datops_assets_tests.quality.bronze_table import BronzeTable, contract

_numbers = itertools.count(1)
PATHS = ["a.csv", "b.csv", "c.csv"]


@dataclass(frozen=True)
class Shape:
    """One way to declare the table."""

    key: tuple[str, ...] = ("k",)
    on_null_key: str = "quarantine"
    latest_by: str | None = None
    highest: int = 9
    unique: bool = False
    disposition: str = "append"

    def contract(self, highest: int) -> Contract:
        rules = [{"unique": ["u"]}] if self.unique else []
        columns = {
            "k": {"type": "integer"},
            "k2": {"type": "text"},
            "at": {"type": "date"},
            "v": {"type": "integer", "max": highest},
            "u": {"type": "text"},
        }
        return contract(
            key=list(self.key),
            on_null_key=self.on_null_key,
            latest_by=self.latest_by if self.key else None,
            columns=columns,
            rules=rules,
        )


@dataclass
class Load:
    load_id: int
    path: str
    rows: list[tuple[Any, ...]]
    live: bool = True


@dataclass
class Model:
    """What silver and the quarantine should hold, worked out row by row."""

    shape: Shape
    loads: list[Load] = field(default_factory=list)
    dropped: set[tuple[int, int]] = field(default_factory=set)

    def expected(self, highest: int) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
        """The places (load, row) of silver's rows and of the quarantine's."""
        silver: dict[Any, tuple[tuple[int, int], Any, tuple[Any, ...]]] = {}
        waiting = set()
        for load in self.live():
            before = {entry[2][4]: key for key, entry in silver.items()} if self.shape.unique else {}
            owners: dict[str, Any] = {}
            for number, row in enumerate(load.rows, start=1):
                place = (load.load_id, number)
                if place in self.dropped:
                    continue
                key = self.key_of(row, place)
                if not self.passes(row, highest):
                    waiting.add(place)
                    continue
                if self.shape.unique and row[4] is not None:
                    owner = before.get(row[4], owners.setdefault(row[4], key))
                    if owner != key:
                        waiting.add(place)
                        continue
                if key not in silver or self.rank(row, place) > self.rank(silver[key][2], silver[key][0]):
                    silver[key] = (place, key, row)
        return {entry[0] for entry in silver.values()}, waiting

    def live(self) -> list[Load]:
        return sorted((load for load in self.loads if load.live), key=lambda load: load.load_id)

    def key_of(self, row: tuple[Any, ...], place: tuple[int, int]) -> Any:
        return tuple(row[("k", "k2").index(name)] for name in self.shape.key) if self.shape.key else place

    def passes(self, row: tuple[Any, ...], highest: int) -> bool:
        k, k2, _, v, _ = row
        if v is not None and (not v.isdigit() or int(v) > highest):
            return False
        return (
            self.shape.on_null_key == "keep"
            or not self.shape.key
            or None not in (k, k2)[: len(self.shape.key)]
        )

    def rank(self, row: tuple[Any, ...], place: tuple[int, int]) -> tuple[Any, ...]:
        at = row[2] or "" if self.shape.latest_by else ""
        return (at, place)


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["1", "2", "1", "2", None]),
        st.sampled_from(["x", "x", "y", None]),
        st.sampled_from(["2024-01-01", "2024-01-02", None]),
        st.sampled_from(["1", "5", "7", "bad", None]),
        st.sampled_from(["p", "q", "r", None]),
    ),
    min_size=1,
    max_size=4,
)
LOAD = st.tuples(st.just("load"), st.sampled_from(PATHS), ROWS)
STEPS = st.lists(
    st.one_of(
        LOAD,
        LOAD,
        LOAD,
        st.tuples(st.just("two"), ROWS, ROWS),
        st.tuples(st.just("undo"), st.integers(0, 3)),
        st.tuples(st.just("undo"), st.integers(0, 3)),
        st.tuples(st.just("redo"), st.integers(0, 3)),
        st.tuples(st.just("contract"), st.sampled_from([4, 6, 9])),
        st.tuples(st.just("partition"), st.sampled_from(PATHS)),
        st.tuples(st.just("replay")),
        st.tuples(st.just("drop")),
    ),
    min_size=3,
    max_size=8,
)
SHAPES = st.builds(
    Shape,
    key=st.sampled_from([("k",), ("k", "k2"), ()]),
    on_null_key=st.sampled_from(["keep", "quarantine"]),
    latest_by=st.sampled_from(["at", None]),
    unique=st.booleans(),
    disposition=st.sampled_from(["append", "snapshot"]),
)


class Player:
    """Plays steps on the warehouse and on the model."""

    def __init__(self, conn: Any, shape: Shape) -> None:
        self.shape, self.highest = shape, 9
        self.bronze = BronzeTable(conn, f"t{next(_numbers)}", ["k", "k2", "at", "v", "u"])
        self.model = Model(shape)

    @property
    def arguments(self) -> dict[str, Any]:
        return {
            "source": "shop", "table": self.bronze.name,
            "contract": self.shape.contract(self.highest), "disposition": self.shape.disposition,
        }  # fmt: skip

    def play(self, what: str, *values: Any) -> None:
        getattr(self, what)(*values)

    def load(self, path: str, rows: list[Any]) -> None:
        for older in self.model.loads:
            if older.path == path and older.live:
                older.live = False
                self.bronze.set_state(older.load_id, "superseded")
        load_id = self.bronze.load(*rows, path=path, partition=path)
        self.model.loads.append(Load(load_id, path, rows))

    def two(self, some: list[Any], others: list[Any]) -> None:
        self.load("a.csv", some)
        self.load("b.csv", others)

    def undo(self, which: int) -> None:
        self._turn(which, live=False)

    def redo(self, which: int) -> None:
        self._turn(which, live=True)

    def _turn(self, which: int, *, live: bool) -> None:
        if which < len(self.model.loads):
            self.model.loads[which].live = live
            self.bronze.set_state(self.model.loads[which].load_id, "loaded" if live else "undone")

    def contract(self, highest: int) -> None:
        self.highest = highest

    def judge(self) -> None:
        judgement = self.bronze.judge(self.shape.contract(self.highest), disposition=self.shape.disposition)
        assert judgement.rows_total == len(self.bronze.silver("k"))
        assert min(judgement.rows_inserted, judgement.rows_updated, judgement.rows_deleted) >= 0

    def partition(self, path: str) -> None:
        judge_partitions(self.bronze.conn, partition_keys=[path], **self.arguments)

    def replay(self) -> None:
        replay_quarantine(self.bronze.conn, **self.arguments)
        again = replay_quarantine(self.bronze.conn, **self.arguments)
        assert again.rows_released == 0

    def drop(self) -> None:
        self.judge()
        self.model.dropped |= {(load, row) for load, row, _ in self.bronze.waiting()}
        drop_quarantined(self.bronze.conn, source="shop", table=self.bronze.name, because="test")

    def check(self) -> None:
        silver = [row[-2:] for row in self.bronze.silver("*")]
        waiting = [place[:2] for place in self.bronze.waiting()]
        expected = self.model.expected(self.highest) if self.model.live() else (set(), set())
        assert (set(silver), set(waiting)) == expected
        assert len(silver) == len(set(silver))


ONE, TWO = ("1", "x", None, "1", None), ("2", "x", None, "1", None)
TAKES_P, GIVES_P_BACK, WANTS_P = (
    ("1", "x", None, "1", "p"),
    ("1", "x", None, "1", "q"),
    ("2", "x", None, "1", "p"),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(shape=SHAPES, steps=STEPS, eager=st.sampled_from([True, True, False]))
@example(shape=Shape(), steps=[("load", "a.csv", [ONE]), ("load", "b.csv", [ONE]), ("undo", 1)], eager=True)
@example(
    shape=Shape(latest_by="at"),
    steps=[("load", "a.csv", [("1", "x", "2024-01-02", "1", None)]), ("load", "b.csv", [ONE])],
    eager=True,
)
@example(
    shape=Shape(),
    steps=[("load", "a.csv", [ONE]), ("load", "b.csv", [("1", "x", None, "bad", None)]), ("undo", 1)],
    eager=True,
)
@example(
    shape=Shape(unique=True),
    steps=[("load", "a.csv", [TAKES_P]), ("load", "b.csv", [WANTS_P]), ("replay",)],
    eager=True,
)
@example(
    shape=Shape(unique=True),
    steps=[("load", "a.csv", [TAKES_P, GIVES_P_BACK]), ("load", "b.csv", [WANTS_P])],
    eager=False,
)
@example(
    shape=Shape(disposition="snapshot"),
    steps=[("two", [ONE], [TWO]), ("load", "c.csv", [("1", "x", None, "bad", None)])],
    eager=True,
)
@example(
    shape=Shape(disposition="snapshot"),
    steps=[("two", [ONE], [TWO]), ("load", "c.csv", [ONE]), ("undo", 2)],
    eager=True,
)
def test_silver_depends_on_live_loads_and_contract_only(
    warehouse: Any, shape: Shape, steps: list[Any], eager: bool
) -> None:
    """Judged after every step or once at the end, and judged again from nothing: always the same."""
    player = Player(warehouse.conn, shape)
    for step in steps:
        player.play(*step)
        if eager:
            player.judge()
            player.check()
    player.judge()
    player.check()
    before = player.bronze.silver(), player.bronze.waiting()
    planned = plan_judgement(
        warehouse.conn,
        "shop",
        player.bronze.name,
        shape.contract(player.highest),
        disposition=shape.disposition,  # type: ignore[arg-type]
    )
    assert planned.what == "nothing"
    rebuild_table(warehouse.conn, **player.arguments)
    assert (player.bronze.silver(), player.bronze.waiting()) == before
