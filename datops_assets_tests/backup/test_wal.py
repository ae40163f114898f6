"""The log between backups is kept without a gap, and a server comes back to the second."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from datops_assets.backup import log_copies
from datops_assets.backup.destinations import Destination, FolderDestination
from datops_assets.backup.log_archive import LogFile, check_log, list_log, parse_name, problems_of, reach_of
from datops_assets.backup.recovery import RecoveringServer, Target
from datops_assets.backup.wal import LogStream, Received, plan_forget, read_state, receive
from datops_assets.backup.wal_segments import SEGMENT_BYTES, Parting, missing_segments, segment_name, start_of
from datops_assets.errors import BackupDamagedError, BackupError, LockTakenError
from datops_assets.postgres.lsn import parse_lsn
from datops_assets_tests.backup.conftest import datops
from datops_assets_tests.backup.physical_server import Copied

MIB = 1 << 20


@pytest.fixture
def stream(copied: Copied) -> Iterator[LogStream]:
    """The log of the server that is copied; its slot goes afterwards."""
    yield stream_of(copied)
    drop_slot(copied)


def stream_of(copied: Copied) -> LogStream:
    about = copied.backup
    return LogStream("whole", about.server, about.destinations, about.keys, about.staging, every_s=0.5)


@pytest.fixture
def log_document(server_document: Path, copied: Copied) -> Iterator[Path]:
    """backup.yaml that receives the log, too."""
    server_document.write_text(server_document.read_text() + "wal: {every_s: 0.5}\n")
    yield server_document
    drop_slot(copied)


def drop_slot(copied: Copied) -> None:
    with copied.connect() as conn:
        conn.execute(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name ~ '^datops_'"
        )


def kept(copied: Copied, stream: LogStream) -> Received:
    return receive(copied.warehouse.conn, stream, once=True)


def files(stream: LogStream) -> list[LogFile]:
    return list_log(stream.destinations[0], "whole")


def write(copied: Copied, megabytes: int) -> None:
    """Move the log on."""
    with copied.connect() as conn:
        for _ in range(megabytes):
            conn.execute("select pg_logical_emit_message(true, 'test', repeat('x', 1024 * 1024))")


def next_segment(copied: Copied) -> None:
    with copied.connect() as conn:
        conn.execute("select pg_logical_emit_message(true, 'test', 'x')")
        conn.execute("select pg_switch_wal()")


@contextmanager
def server_of(folder: Path, version: int, dbname: str = "datops") -> Iterator[psycopg.Connection[Any]]:
    """A connection to a restored folder."""
    server = RecoveringServer(folder.with_name(f"{folder.name}-started"), version, None)
    folder.rename(server.data)
    server.wal.mkdir(exist_ok=True)
    try:
        with server.start(Target(), durable=False, superuser="datops", dbname=dbname).connect() as conn:
            yield conn
    finally:
        server.stop()


def test_segments_and_the_part_that_grows_are_kept_and_follow_one_another(
    copied: Copied, stream: LogStream
) -> None:
    taken = copied.take()
    first = kept(copied, stream)
    assert first.until is not None
    next_segment(copied)
    next_segment(copied)
    write(copied, 1)
    second = kept(copied, stream)
    there = files(stream)
    names = [one.segment for one in there]
    assert second.segments >= 2
    assert [one.partial for one in there] == [False] * (len(there) - 1) + [True]
    assert missing_segments(names, 1, start_of(names[0]), start_of(names[-1])) == []
    assert check_log(there, stream.destinations[0], "whole", stream.keys) == []
    assert taken.manifest.timeline == 1
    row = copied.warehouse.fetch(
        "select count(*), max(covered)::text from datops.backup_wal where name = 'whole'"
    )
    assert row == [(len(there), second.covered)]
    state = read_state(copied.warehouse.conn, stream)
    assert state.slot_status == "reserved"
    assert state.retained_bytes is not None
    assert state.retained_bytes < 2 * SEGMENT_BYTES
    assert list(stream.staging.iterdir()) == []


@pytest.mark.backup_fault
def test_a_receiver_killed_before_it_moves_the_slot_on_leaves_no_gap(
    log_document: Path, copied: Copied
) -> None:
    datops("wal", "--once")
    next_segment(copied)
    script = (
        "from datops_assets.postgres import failpoints; from datops_assets.cli import _app\n"
        "failpoints.arm('wal.kept')\n_app()(['backup', 'wal', '--once', '--config', 'backup.yaml'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    next_segment(copied)
    assert datops("wal", "--once")["started_anew"] is None
    with copied.connect() as conn:  # the pg_receivewal that outlived it is gone, too
        for _ in range(300):
            if conn.execute("select count(*) from pg_stat_replication").fetchone() == (0,):
                break
            time.sleep(0.1)
        else:
            pytest.fail("somebody receives still")
    names = [one.segment for one in list_log(copied.backup.destinations[0], "whole")]
    assert missing_segments(names, 1, start_of(names[0]), start_of(names[-1])) == []


@pytest.mark.slow
def test_a_server_comes_back_to_the_second_from_under_a_load_of_writes(
    log_document: Path, copied: Copied, tmp_path: Path
) -> None:
    """Each row knows when its transaction began and when it had been committed, by the server's clock."""
    stop = threading.Event()
    seen: list[tuple[int, datetime, datetime]] = []

    def write_rows() -> None:
        with copied.connect() as conn:
            number = 50_000
            while not stop.is_set():
                before = conn.execute("select clock_timestamp()").fetchone()
                conn.execute("insert into orders values (%s, 'load')", (number,))
                after = conn.execute("select clock_timestamp()").fetchone()
                assert before and after
                seen.append((number, before[0], after[0]))
                number += 1

    receiving = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from datops_assets.cli import _app; _app()(['backup', 'wal', '--config', 'backup.yaml'])",
        ]
    )
    writer = threading.Thread(target=write_rows)
    writer.start()
    try:
        version = copied_version(datops("run", "--kind", "full"))
        time.sleep(2)
        targets = [datetime.now(UTC)]
        time.sleep(2)
        targets.append(datetime.now(UTC))
        time.sleep(1)
    finally:
        stop.set()
        writer.join()
        receiving.send_signal(signal.SIGTERM)
        assert receiving.wait(120) == 0
    for number, target in enumerate(targets):
        folder = tmp_path / f"back{number}"
        plan = datops("restore", "--folder", str(folder), "--to-time", target.isoformat())
        assert plan["problems"] == []
        assert (
            datops("restore", "--folder", str(folder), "--to-time", target.isoformat(), "--apply")["findings"]
            == []
        )
        with server_of(folder, version) as conn:
            back = {row[0] for row in conn.execute("select id from orders where id >= 50000").fetchall()}
        assert {one for one, _, after in seen if after <= target} <= back
        assert not {one for one, before, _ in seen if before > target} & back
        assert 0 < len(back) < len(seen)


def copied_version(taken: dict[str, Any]) -> int:
    assert taken["kind"] == "full"
    return 180000


def test_a_server_comes_back_to_a_named_point_and_to_an_lsn(
    log_document: Path, copied: Copied, tmp_path: Path
) -> None:
    datops("run", "--kind", "full")
    with copied.connect() as conn:
        conn.execute("insert into orders values (60001, 'before')")
        row = conn.execute("select pg_create_restore_point('before the release')::text").fetchone()
        assert row is not None
        conn.execute("insert into orders values (60002, 'after')")
    datops("wal", "--once")
    for number, wanted in enumerate((["--to-name", "before the release"], ["--to-lsn", row[0]])):
        folder = tmp_path / f"back{number}"
        done = datops("restore", "--folder", str(folder), *wanted, "--apply")
        assert any("recovery stopping" in line for line in done["recovery"])
        with server_of(folder, 180000) as conn:
            found = conn.execute("select id from orders where id > 60000").fetchall()
        assert found == [(60001,)]


@pytest.mark.backup_fault
def test_a_name_that_the_log_lacks_is_refused_in_the_plan_and_one_from_before_the_newest_backup_is_found(
    log_document: Path, copied: Copied, tmp_path: Path
) -> None:
    datops("wal", "--once")
    datops("run", "--kind", "full")
    with copied.connect() as conn:
        conn.execute("insert into orders values (70001, 'before')")
        conn.execute("select pg_create_restore_point('v1, the first')")
        conn.execute("insert into orders values (70002, 'after')")
    next_segment(copied)
    datops("run", "--kind", "full")
    with copied.connect() as conn:
        conn.execute("select pg_create_restore_point('twice'), pg_create_restore_point('twice')")
    datops("wal", "--once")
    said = str(datops("restore", "--folder", "b", "--to-name", "v2", expect=1))
    assert "no place that is called 'v2'; it has: 'twice', 'v1, the first'" in said
    assert "2 places that are called 'twice'; choose one: --to-lsn" in str(
        datops("restore", "--folder", "b", "--to-name", "twice", expect=1)
    )
    folder = tmp_path / "back"
    assert (
        datops("restore", "--folder", str(folder), "--to-name", "v1, the first", "--apply")["findings"] == []
    )
    with server_of(folder, 180000) as conn:
        assert conn.execute("select id from orders where id > 70000").fetchall() == [(70001,)]


@pytest.mark.backup_fault
def test_a_target_before_the_first_backup_or_behind_the_log_is_refused(
    log_document: Path, copied: Copied
) -> None:
    datops("wal", "--once")
    datops("run", "--kind", "full")
    datops("wal", "--once")
    early = (datetime.now(UTC) - timedelta(days=2)).isoformat()
    late = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert "before the first physical backup" in str(
        datops("restore", "--folder", "b", "--to-time", early, expect=1)
    )
    assert "before the first physical backup" in str(
        datops("restore", "--folder", "b", "--to-lsn", "0/1", expect=1)
    )
    plan = datops("restore", "--folder", "b", "--to-time", late, expect=1)
    assert "behind the end of the log" in plan["problems"][0]
    plan = datops("restore", "--folder", "b", "--to-lsn", "FF/0", expect=1)
    assert "behind the end of the log" in plan["problems"][0]
    assert "cannot be read" in str(datops("restore", "--folder", "b", "--to-time", "yesterday", expect=2))


@pytest.mark.backup_fault
def test_a_missing_segment_is_named_by_the_check_and_by_the_plan(log_document: Path, copied: Copied) -> None:
    datops("wal", "--once")
    datops("run", "--kind", "full")
    for _ in range(3):
        next_segment(copied)
    datops("wal", "--once")
    assert datops("wal", "--status")["findings"] == []
    folder = log_document.parent / "kept/whole-wal"
    gone = sorted(path for path in folder.iterdir() if ".partial" not in path.name)[-2]
    gone.unlink()
    segment = gone.name[:24]
    assert segment in str(datops("wal", "--status", expect=1)["findings"])
    assert segment in str(datops("restore", "--folder", "b", expect=1)["problems"])


@pytest.mark.backup_fault
@pytest.mark.parametrize("damage", ["a flipped bit", "a cut file", "another segment's content"])
def test_a_damaged_segment_is_found(copied: Copied, stream: LogStream, damage: str) -> None:
    kept(copied, stream)
    next_segment(copied)
    next_segment(copied)
    kept(copied, stream)
    whole = [copied.folder / "whole-wal" / one.name for one in files(stream) if not one.partial]
    content = whole[0].read_bytes()
    if damage == "a flipped bit":
        whole[0].write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
    elif damage == "a cut file":
        whole[0].write_bytes(content[:-10])
    else:
        whole[0].write_bytes(whole[1].read_bytes())
    assert len(check_log(files(stream), stream.destinations[0], "whole", stream.keys)) == 1


@pytest.mark.backup_fault
def test_a_slot_that_was_dropped_is_made_anew_and_leaves_no_gap_where_the_source_has_its_log_still(
    log_document: Path, copied: Copied
) -> None:
    datops("run", "--kind", "full")
    datops("wal", "--once")
    drop_slot(copied)
    next_segment(copied)
    assert "no slot" in str(datops("wal", "--status", expect=1)["findings"])
    assert datops("wal", "--once")["started_anew"] is None
    assert datops("wal", "--status")["findings"] == []


@pytest.mark.backup_fault
def test_a_slot_that_was_dropped_and_a_log_that_went_with_it_leave_a_gap_that_a_full_backup_closes(
    log_document: Path, copied: Copied
) -> None:
    datops("run", "--kind", "full")
    datops("wal", "--once")
    kept_to = datops("wal", "--status")["covered"]
    drop_slot(copied)
    let_go_of_the_log(copied, kept_to)
    said = datops("wal", "--once", expect=1)["started_anew"]
    assert "its slot was gone: the log begins anew at" in said
    assert "datops backup run whole --kind full" in said
    next_segment(copied)
    datops("wal", "--once")
    # It stays known, and only what lies before the gap can be wanted.
    (finding,) = datops("wal", "--status", expect=1)["findings"]
    assert "the log lacks 0000000" in finding
    assert "the log has a gap" in str(datops("restore", "--folder", "back", expect=1)["problems"])
    datops("run", "--kind", "full")
    datops("wal", "--once")
    assert datops("wal", "--status")["findings"] == []
    assert datops("restore", "--folder", "back")["problems"] == []


@pytest.mark.backup_fault
def test_a_source_that_ran_out_of_room_for_the_slot_says_so(log_document: Path, copied: Copied) -> None:
    datops("run", "--kind", "full")
    datops("wal", "--once")
    kept_to = datops("wal", "--status")["covered"]
    with copied.connect() as conn:
        conn.execute("alter system set max_slot_wal_keep_size = '1MB'")
        conn.execute("select pg_reload_conf()")
    try:
        let_go_of_the_log(copied, kept_to)
        assert "dropped what the slot datops_whole held" in str(
            datops("wal", "--status", expect=1)["findings"]
        )
        assert "the source dropped what the slot held" in datops("wal", "--once", expect=1)["started_anew"]
        assert read_state(copied.warehouse.conn, stream_of(copied)).slot_status == "reserved"
    finally:
        with copied.connect() as conn:
            conn.execute("alter system reset max_slot_wal_keep_size")
            conn.execute("select pg_reload_conf()")


def let_go_of_the_log(copied: Copied, kept_to: str) -> None:
    """Write and check point until the source has the log from there no more."""
    segment = segment_name(1, parse_lsn(kept_to))
    for _ in range(60):
        for _ in range(5):
            next_segment(copied)
        with copied.connect() as conn:
            conn.execute("checkpoint")
            there = {name for (name,) in conn.execute("select name from pg_ls_waldir()")}
        if segment not in there:
            return
    pytest.fail("the source keeps its log")


@pytest.mark.backup_fault
def test_a_second_receiver_is_refused(copied: Copied, stream: LogStream) -> None:
    stop, outcome = threading.Event(), []

    def run() -> None:
        with copied.warehouse.connect() as conn:
            outcome.append(receive(conn, stream, stop=stop))

    first = threading.Thread(target=run)
    first.start()
    try:
        for _ in range(300):
            if files(stream):
                break
            time.sleep(0.1)
        with pytest.raises(LockTakenError, match="receives the log"):
            kept(copied, stream)
    finally:
        stop.set()
        first.join()
    assert outcome[0].covered != "0/0"


@pytest.mark.backup_fault
def test_a_destination_that_is_gone_holds_the_slot_back(copied: Copied, stream: LogStream) -> None:
    kept(copied, stream)
    before = read_state(copied.warehouse.conn, stream)
    next_segment(copied)
    folder = copied.folder / "whole-wal"
    folder.rename(copied.folder / "aside")
    folder.write_text("no folder")
    with pytest.raises(BackupError):
        kept(copied, stream)
    held = read_state(copied.warehouse.conn, stream)
    assert held.retained_bytes is not None
    assert before.retained_bytes is not None
    assert held.retained_bytes > before.retained_bytes
    folder.unlink()
    (copied.folder / "aside").rename(folder)
    kept(copied, stream)
    names = [one.segment for one in files(stream)]
    assert missing_segments(names, 1, start_of(names[0]), start_of(names[-1])) == []


@pytest.fixture
def two(copied: Copied, stream: LogStream) -> LogStream:
    """The log at two destinations."""
    second = FolderDestination("second", copied.folder.with_name("second"))
    return dataclasses.replace(stream, destinations=[*stream.destinations, second])


@contextmanager
def gone(destination: Destination) -> Iterator[None]:
    """A folder that cannot be written to, and comes back with what it had."""
    assert isinstance(destination, FolderDestination)
    aside = destination.root.with_name("aside")
    destination.root.rename(aside)
    destination.root.write_text("no folder")
    yield
    destination.root.unlink()
    aside.rename(destination.root)


def names_at(destination: Destination) -> list[str]:
    return [one.name for one in list_log(destination, "whole")]


@pytest.mark.backup_fault
def test_one_dead_destination_of_two_stops_nobody_and_gets_what_it_lacks(
    copied: Copied, two: LogStream
) -> None:
    first, second = two.destinations
    kept(copied, two)
    with gone(second):
        next_segment(copied)
        received = kept(copied, two)
        assert list(received.failed) == ["second"]
        assert received.segments
        next_segment(copied)
        kept(copied, two)
        state = read_state(copied.warehouse.conn, two)
        # The source is not filled up for it: the other has all.
        assert state.retained_bytes is not None
        assert state.retained_bytes < 2 * SEGMENT_BYTES
    assert len(names_at(second)) < len(names_at(first))
    assert kept(copied, two).failed == {}
    assert names_at(second) == names_at(first)
    assert check_log(list_log(second, "whole"), second, "whole", two.keys) == []
    rows = copied.warehouse.fetch("select distinct destinations from datops.backup_wal where name = 'whole'")
    assert rows == [(["local", "second"],)]


@pytest.mark.backup_fault
def test_a_destination_that_goes_and_comes_back_under_a_running_receiver_is_said(
    copied: Copied, two: LogStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_copies, "RETRY_S", 0.2)
    kept(copied, two)
    stop, said = threading.Event(), list[str]()
    outcome: list[Received] = []

    def run() -> None:
        with copied.warehouse.connect() as conn:
            outcome.append(receive(conn, two, stop=stop, say=said.append))

    def heard(words: str) -> None:
        for _ in range(600):
            if any(words in line for line in said):
                return
            time.sleep(0.1)
        pytest.fail(f"{words!r} was not said: {said}")

    receiver = threading.Thread(target=run)
    receiver.start()
    try:
        with gone(two.destinations[1]):
            next_segment(copied)
            heard("the destination second does not keep the log")
        heard("the destination second answers again")
        next_segment(copied)
    finally:
        stop.set()
        receiver.join()
    assert outcome[0].failed == {}
    kept(copied, two)
    assert names_at(two.destinations[1]) == names_at(two.destinations[0])


@pytest.mark.backup_fault
def test_damage_is_not_spread_to_the_destination_that_lacks_a_file(copied: Copied, two: LogStream) -> None:
    first, second = two.destinations
    assert isinstance(first, FolderDestination)
    kept(copied, dataclasses.replace(two, destinations=[first]))
    next_segment(copied)
    kept(copied, dataclasses.replace(two, destinations=[first]))
    damaged = next(one for one in list_log(first, "whole") if not one.partial)
    path = first.root / "whole-wal" / damaged.name
    path.write_bytes(path.read_bytes()[:-10])
    said: list[str] = []
    receive(copied.warehouse.conn, two, once=True, say=said.append)
    assert any(damaged.segment in line and "does not have it right" in line for line in said)
    assert damaged.name not in names_at(second)
    assert set(names_at(first)) - set(names_at(second)) == {damaged.name}


@pytest.mark.backup_fault
def test_the_check_names_the_destination_that_lacks_a_segment_and_a_restore_takes_it_from_the_other(
    log_document: Path, copied: Copied, tmp_path: Path
) -> None:
    log_document.write_text(
        log_document.read_text().replace("destinations:\n", "destinations:\n  other: {url: other}\n")
    )
    datops("run", "--kind", "full")
    datops("wal", "--once")
    for _ in range(3):
        next_segment(copied)
    datops("wal", "--once")
    # Each lacks another one: only both together have the whole log.
    lost = []
    for number, folder in enumerate(("kept", "other")):
        whole = [
            path
            for path in (log_document.parent / folder / "whole-wal").iterdir()
            if ".partial" not in path.name
        ]
        lost.append(sorted(whole)[number - 2])
        lost[-1].unlink()
    findings = datops("wal", "--status", expect=1)["findings"]
    assert [one for one in findings if "take a full backup" in one] == []
    for name, path in zip(("local", "other"), lost, strict=True):
        assert any(
            f"the destination {name} lacks 1 file(s)" in one and path.name[:24] in one for one in findings
        )
    assert datops("restore", "--folder", "back", "--apply")["findings"] == []
    assert datops("wal", "--once")["failed"] == {}
    assert datops("wal", "--status")["findings"] == []
    assert all(path.exists() for path in lost)


@pytest.mark.slow
def test_retention_lets_go_what_no_backup_needs(log_document: Path, copied: Copied) -> None:
    log_document.write_text(log_document.read_text() + "retention: {last: 1}\n")
    datops("wal", "--once")
    datops("run", "--kind", "full")
    for _ in range(2):
        next_segment(copied)
    datops("wal", "--once")
    datops("prune", "--apply")
    before = [one.segment for one in list_log(copied.backup.destinations[0], "whole")]
    second = datops("run", "--kind", "full")
    datops("wal", "--once")
    datops("prune", "--apply")
    (start,) = copied.warehouse.fetch(
        "select start_lsn::text from datops.backups where backup_id = %s", second["backup_id"]
    )[0]
    after = [one.segment for one in list_log(copied.backup.destinations[0], "whole")]
    assert segment_name(1, parse_lsn(start)) == after[0]
    assert set(before) - set(after)
    assert datops("wal", "--status")["findings"] == []


def _file(number: int, *, timeline: int = 1, partial: bool = False, covered: int | None = None) -> LogFile:
    at = number * SEGMENT_BYTES
    until = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number)
    return LogFile(
        segment_name(timeline, at),
        partial,
        covered or at + SEGMENT_BYTES,
        until,
        SEGMENT_BYTES,
        "a" * 64,
        True,
    )


def test_a_name_says_what_a_file_is() -> None:
    for one in (_file(3), _file(300, partial=True, covered=300 * SEGMENT_BYTES + 7)):
        assert parse_name(one.name) == one
    assert parse_name("00000001") is None
    assert parse_name("manifest.json") is None


@pytest.mark.backup_fault
def test_the_log_is_followed_over_timelines_and_a_strange_one_is_refused() -> None:
    left = 4 * SEGMENT_BYTES + 100
    there = [
        _file(2),
        _file(3),
        _file(4, timeline=2),
        _file(5, timeline=2),
        _file(6, timeline=2, partial=True),
    ]
    reach = reach_of(there, {2: [Parting(1, left)]}, 1, 2 * SEGMENT_BYTES + 5, SEGMENT_BYTES)
    # The segment in which the timelines part is read of the newer one, which begins with a copy of the older.
    assert [one.segment for one in reach.files] == [one.segment for one in there]
    assert reach.missing is None
    strange = reach_of(there, {3: [Parting(2, left)]}, 1, 0, SEGMENT_BYTES)
    assert "does not come from timeline 1" in strange.problems[0]
    assert problems_of(Target(), strange)


@pytest.mark.backup_fault
def test_a_timeline_that_was_left_is_followed_to_its_own_end_and_its_last_part_ends_no_newer_one() -> None:
    left = {2: [Parting(1, 4 * SEGMENT_BYTES + 100)]}
    old = [_file(2), _file(3), _file(4), _file(5, partial=True, covered=5 * SEGMENT_BYTES + 7)]
    new = [_file(4, timeline=2), _file(5, timeline=2)]
    on_old = reach_of([*old, *new], left, 1, 2 * SEGMENT_BYTES, SEGMENT_BYTES, to=1)
    assert (on_old.covered, on_old.missing) == (5 * SEGMENT_BYTES + 7, None)
    assert reach_of([*old, *new], left, 1, 2 * SEGMENT_BYTES, SEGMENT_BYTES).covered == 6 * SEGMENT_BYTES
    assert "timelines kept: 1, 2" in reach_of(old, left, 1, 0, SEGMENT_BYTES, to=7).problems[0]
    cut = [_file(2), _file(3, partial=True, covered=3 * SEGMENT_BYTES + 9), *new]
    reach = reach_of(cut, left, 1, 2 * SEGMENT_BYTES, SEGMENT_BYTES)
    assert (reach.missing, reach.covered) == (segment_name(1, 3 * SEGMENT_BYTES), 3 * SEGMENT_BYTES)


@pytest.mark.backup_fault
def test_a_gap_ends_the_reach_and_only_what_lies_before_can_be_wanted() -> None:
    reach = reach_of([_file(2), _file(3), _file(5)], {}, 1, 2 * SEGMENT_BYTES + 5, SEGMENT_BYTES)
    assert (reach.missing, reach.covered) == (segment_name(1, 4 * SEGMENT_BYTES), 4 * SEGMENT_BYTES)
    assert problems_of(Target(lsn="0/3000000"), reach) == []
    assert problems_of(Target(lsn="0/5000000"), reach)
    assert problems_of(Target(time=datetime(2026, 1, 1, 0, 5, tzinfo=UTC)), reach)
    assert problems_of(Target(), reach)


def test_nothing_of_the_log_goes_while_nobody_says_from_where_it_is_needed() -> None:
    there = [_file(number) for number in range(1, 5)]
    assert plan_forget(there, None) == []
    assert plan_forget(there, 3 * SEGMENT_BYTES + 1) == there[:2]


@pytest.mark.backup_fault
def test_a_segment_that_vanished_between_plan_and_restore_is_named(copied: Copied, stream: LogStream) -> None:
    from datops_assets.backup.log_archive import fetch_log

    kept(copied, stream)
    there = files(stream)
    (copied.folder / "whole-wal" / there[0].name).unlink()
    with pytest.raises(BackupDamagedError, match="is missing"):
        fetch_log(there, stream.destinations, "whole", stream.keys, copied.folder / "into")


@pytest.mark.slow
def test_the_log_is_an_asset_and_its_check_sees_a_gap(log_document: Path, copied: Copied) -> None:
    import dagster as dg

    from datops_assets.components.backups.component import backup_definitions
    from datops_assets.components.backups.document import read_backup

    definitions = backup_definitions(read_backup(log_document, log_document.parent).document)
    datops("run", "--kind", "full")
    with dg.DagsterInstance.ephemeral() as instance:

        def held() -> Any:
            result = definitions.resolve_job_def("whole_wal_check").execute_in_process(instance=instance)
            (check,) = result.get_asset_check_evaluations()
            return check

        assert not held().passed
        assert definitions.resolve_job_def("whole_wal").execute_in_process(instance=instance).success
        found = held()
        assert found.passed, found.metadata
        assert found.metadata["rpo_s"].value < 300
        for path in (log_document.parent / "kept/whole-wal").iterdir():
            path.unlink()
        assert not held().passed
