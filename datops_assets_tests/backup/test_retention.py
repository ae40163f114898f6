"""Retention as a property: whatever the backups and the rules, what must stay stays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from datops_assets.backup.retention import Candidate, Kept, Retention, keep, next_to_drill

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)


@st.composite
def histories(draw: st.DrawFn) -> list[Kept]:
    hours = draw(st.lists(st.integers(-48, 24 * 900), max_size=25))
    found: list[Kept] = []
    for number, age in enumerate(sorted(hours, reverse=True)):
        parent = draw(st.sampled_from([None, *(one.backup_id for one in found)]))
        found.append(Kept(f"{number:03d}", NOW - timedelta(hours=age), draw(st.booleans()), parent))
    return found


rules = st.builds(
    Retention, last=st.integers(1, 5), days=st.none() | st.integers(1, 60), daily=st.integers(0, 10),
    weekly=st.integers(0, 6), monthly=st.integers(0, 14), yearly=st.integers(0, 3),
)  # fmt: skip


@given(histories(), rules, st.data())
def test_the_last_good_one_parents_and_what_is_read_stay(
    history: list[Kept], rule: Retention, data: st.DataObject
) -> None:
    used = set(data.draw(st.lists(st.sampled_from([one.backup_id for one in history] or ["none"]))))
    stays = keep(history, rule, NOW, used)
    past = [one for one in history if one.is_good and one.snapshot_at <= NOW]
    if any(one.is_good for one in history):
        assert any(one.is_good and one.backup_id in stays for one in history)
    if past:
        assert max(past, key=lambda one: (one.snapshot_at, one.backup_id)).backup_id in stays
    assert all(one.backup_id in stays for one in history if one.backup_id in used)
    assert all(one.parent in stays for one in history if one.backup_id in stays and one.parent)
    assert all(one.backup_id in stays for one in history if one.snapshot_at > NOW)


@given(histories(), rules)
def test_pruning_twice_removes_nothing_more(history: list[Kept], rule: Retention) -> None:
    stays = keep(history, rule, NOW)
    left = [one for one in history if one.backup_id in stays]
    assert set(keep(left, rule, NOW)) == set(stays)


@given(histories(), rules)
def test_a_wrong_clock_pushes_nothing_out(history: list[Kept], rule: Retention) -> None:
    """Backups from the future may be the clock's fault."""
    without = [one for one in history if one.snapshot_at <= NOW and (one.parent is None)]
    future = [Kept(f"f{n}", NOW + timedelta(days=n + 1)) for n in range(5)]
    assert set(keep(without, rule, NOW)) <= set(keep(without + future, rule, NOW))


def test_grandfather_father_son() -> None:
    daily = [Kept(f"{n:03d}", NOW - timedelta(days=n)) for n in range(400)]
    stays = keep(daily, Retention(last=2, daily=3, weekly=2, monthly=3, yearly=2), NOW)
    days = sorted((NOW - timedelta(days=int(name))).date().isoformat() for name in stays)
    assert days == ["2025-12-31", "2026-04-30", "2026-05-31", "2026-06-13", "2026-06-14", "2026-06-15"]


@given(st.lists(st.integers(0, 1000), unique=True, min_size=1, max_size=12))
def test_every_backup_gets_its_turn(ages: list[int]) -> None:
    waiting = {str(age): Candidate(str(age), NOW - timedelta(hours=age), None) for age in ages}
    turns = []
    for number in range(len(ages)):
        chosen = next_to_drill(waiting.values())
        assert chosen is not None
        turns.append(chosen)
        waiting[chosen] = Candidate(chosen, waiting[chosen].snapshot_at, NOW + timedelta(hours=number))
    assert sorted(turns) == sorted(waiting)
