"""What every source has to hold. A new source adds a class with one fixture and inherits the tests."""

from __future__ import annotations

from typing import Any

import pytest

from datops_assets.ingestion import ArrowDelivery, CopyDelivery, Delivery, Source, TextDelivery


def read(delivery: Delivery) -> list[Any]:
    """Read a delivery to its end."""
    if isinstance(delivery, TextDelivery):
        return [b"".join(delivery.chunks())]
    if isinstance(delivery, CopyDelivery):
        return [b"".join(delivery.chunks([type_ for _, type_ in delivery.columns()]))]
    assert isinstance(delivery, ArrowDelivery)
    return [batch.to_pylist() for batch in delivery.batches()]


class SourceContract:
    """Inherit, and give a `source`, a `table` with at least two units, and a `missing` table.

    `least_units = 1` for a kind that has but one unit at a time.
    """

    least_units = 2

    @pytest.fixture
    def source(self) -> Source[Any]:
        """Return the source under test."""
        raise NotImplementedError

    @pytest.fixture
    def table(self) -> Any:
        """Return a table with at least two units, all of them complete."""
        raise NotImplementedError

    @pytest.fixture
    def missing(self) -> Any:
        """Return a table that cannot be reached."""
        raise NotImplementedError

    def test_check_says_yes_or_no_and_never_raises(
        self, source: Source[Any], table: Any, missing: Any
    ) -> None:
        """One sentence each."""
        assert source.check(table).ok
        refused = source.check(missing)
        assert (refused.ok, bool(refused.message)) == (False, True)

    def test_the_same_state_gives_the_same_list(self, source: Source[Any], table: Any) -> None:
        """Paths are unique, and nothing that is complete waits."""
        units = source.list_units(table)
        assert units == source.list_units(table)
        assert len(units) >= self.least_units
        assert len({unit.path for unit in units}) == len(units)
        assert all(unit.waiting is None for unit in units)

    def test_opening_again_delivers_the_same(self, source: Source[Any], table: Any) -> None:
        """Content and hash."""
        for unit in source.list_units(table):
            seen = []
            for _ in range(2):
                with source.open(unit) as delivery:
                    seen.append((read(delivery), delivery.content_hash()))
            assert seen[0] == seen[1]

    def test_a_delivery_may_be_left_half_read(self, source: Source[Any], table: Any) -> None:
        """Its hash is that of the whole unit all the same."""
        unit = source.list_units(table)[0]
        with source.open(unit) as whole:
            read(whole)
            expected = whole.content_hash()
        with source.open(unit) as unread:
            assert unread.content_hash() == expected

    def test_acknowledging_twice_is_harmless(self, source: Source[Any], table: Any) -> None:
        """A crash after the first time makes the second happen."""
        before = source.list_units(table)
        source.acknowledge(before[0])
        source.acknowledge(before[0])

    def test_the_sketch_names_columns(self, source: Source[Any], table: Any) -> None:
        """Without loading anything."""
        assert source.sketch(table)
