"""Whatever the source is and whatever happens between two looks: mirror and source are equal, the log leads there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from datops_assets.cdc.query import QueryStream
from datops_assets_tests.cdc.query.conftest import Queried

COLUMNS = "id, name, note, amount, at"
TABLE = (
    "create table {} (id int not null, name varchar(20) not null, note varchar(200), amount decimal(10,2),"
    " at bigint, primary key (id, name))"
)
ROWS_BEFORE = 300
_numbers = iter(range(1, 10**9))

keys = st.tuples(st.integers(1, 12), st.sampled_from(["a", "B", "é", "n;1:x", "'"]))
notes = st.none() | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12) | st.just("1:x")
amounts = st.none() | st.decimals(-999, 999, places=2)
steps = st.one_of(
    st.tuples(st.just("put"), keys, notes, amounts),
    st.tuples(st.just("delete"), keys),
    st.tuples(st.just("move"), keys, keys),
    st.tuples(st.just("swap"), st.integers(20, ROWS_BEFORE), st.integers(20, ROWS_BEFORE)),
    st.tuples(st.just("clear")),
)


@dataclass
class Changing:
    """A table of the source, and what it is changed by."""

    source: Queried
    name: str
    now: int = 1

    def create(self) -> None:
        """Make it, with some rows."""
        self.source.run(TABLE.format(self.name))
        rows = ", ".join(f"({n}, 'a', 'before', {n}.50, 0)" for n in range(20, 20 + ROWS_BEFORE))
        self.source.run(f"insert into {self.name} values {rows}")

    def change(self, step: tuple[Any, ...]) -> None:
        """Do one thing, as its cursor would have it."""
        self.now += 1
        if step[0] == "put":
            self._delete(step[1])
            self._insert(*step[1:])
        elif step[0] == "delete":
            self._delete(step[1])
        elif step[0] == "move":
            self._delete(step[2])
            self.source.run(
                f"update {self.name} set id = {step[2][0]}, name = {quoted(step[2][1])}, at = {self.now}"
                f" where {self._is(step[1])}"
            )
        elif step[0] == "swap":
            for before, after in ((step[1], -1), (step[2], step[1]), (-1, step[2])):
                self.source.run(
                    f"update {self.name} set id = {after}, at = {self.now} where id = {before}"
                    f" and not exists (select 1 from (select * from {self.name}) x where x.id = {after})"
                )
        else:
            self.source.run(f"delete from {self.name}")

    def _insert(self, key: tuple[int, str], note: str | None, amount: Any) -> None:
        self.source.run(
            f"insert into {self.name} values ({key[0]}, {quoted(key[1])}, {quoted(note)},"
            f" {'null' if amount is None else amount}, {self.now})"
        )

    def _delete(self, key: tuple[int, str]) -> None:
        self.source.run(f"delete from {self.name} where {self._is(key)}")

    @staticmethod
    def _is(key: tuple[int, str]) -> str:
        return f"id = {key[0]} and name = {quoted(key[1])}"

    def there(self) -> set[tuple[str | None, ...]]:
        """The source's rows, as texts."""
        return as_texts(self.source.read(f"select {COLUMNS} from {self.name}"))

    def here(self) -> set[tuple[str | None, ...]]:
        """The mirror's."""
        return as_texts(self.source.mirror(COLUMNS, self.name))


def quoted(value: str | None) -> str:
    # MariaDB reads backslashes in texts.
    return "null" if value is None else "'" + value.replace("\\", "/").replace("'", "''") + "'"


def as_texts(rows: list[tuple[Any, ...]]) -> set[tuple[str | None, ...]]:
    return {tuple(None if value is None else str(value) for value in row) for row in rows}


def replayed(before: set[tuple[str | None, ...]], log: list[tuple[Any, ...]]) -> set[tuple[str | None, ...]]:
    """What the log makes of the first copy; each entry must make sense where it stands."""
    held = {row[:2]: row for row in before}
    for op, *values in log:
        row = next(iter(as_texts([tuple(values)])))
        assert (row[:2] in held) == (op != "i"), (op, row)
        if op == "d":
            assert held.pop(row[:2]) == row
        else:
            assert held.get(row[:2]) != row
            held[row[:2]] = row
    return set(held.values())


def hold(source: Queried, looks: list[list[tuple[Any, ...]]], cursor: str | None, compare: str) -> None:
    source.stream = QueryStream("erp", ())
    table = Changing(source, f"orders_{next(_numbers)}")
    table.create()
    source.follow(table.name, cursor=cursor, compare=compare)
    source.snapshot()
    before = table.here()
    assert before == table.there()
    for steps_ in looks:
        for step in steps_:
            table.change(step)
        source.drain()
        assert table.here() == table.there()
    log = source.log(f"_op, {COLUMNS}", table.name)
    assert replayed(before, log) == table.here()
    assert source.drain().changes == 0


few = settings(
    max_examples=4,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # a smaller example takes longer to find than to read
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
many = settings(few, max_examples=100)
looks = st.lists(st.lists(steps, max_size=5), min_size=1, max_size=3)


@few
@given(looks=looks, compare=st.sampled_from(["rows", "keys"]))
def test_mirror_is_source_after_each_look(source: Queried, looks: Any, compare: str) -> None:
    hold(source, looks, "at" if compare == "keys" else None, compare)


@pytest.mark.slow
@many
@given(looks=looks, compare=st.sampled_from(["rows", "keys"]))
def test_mirror_is_source_after_each_of_many_looks(source: Queried, looks: Any, compare: str) -> None:
    hold(source, looks, "at" if compare == "keys" else None, compare)


def test_few_rows_are_read_for_few_changes(source: Queried, request: pytest.FixtureRequest) -> None:
    table = Changing(source, "orders")
    table.create()
    source.follow("orders", cursor="at")
    source.run("update orders set at = id")
    source.snapshot()
    source.run("delete from orders where id = 77")
    done = source.drain()
    assert (done.changes, table.here()) == (1, table.there())
    hashes = "other" not in request.node.name
    assert (done.rows_read["orders"] < ROWS_BEFORE // 2) == hashes
