"""What stands where a file was expected, and what a file may be called: taken, or refused and named."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from datops_assets_tests.bad_input.conftest import MAIN, ROOT, RUN, Landing, Platform

ROWS = "id,note\n1,x\n"


@pytest.fixture
def deep(orders: Landing) -> Landing:
    """As orders, its files at any depth and known by their ending."""
    orders.declare("orders", orders.tables["orders"].replace("orders/*\nformat: csv", "'orders/**/*.csv'"))
    return orders


@pytest.fixture
def outside(project: Path) -> Path:
    """A file that is none of the source's."""
    file = project / "outside" / "secret.csv"
    file.parent.mkdir()
    file.write_text("id,note\n66,secret\n")
    return file


def test_a_file_is_loaded_whatever_its_name(deep: Landing) -> None:
    names = [
        "a b.csv", "new\nline.csv", "ünï.csv", "e\u0301.csv", "日本.csv", "\u202egnp.csv", "100%s %(x)s.csv",
        "quo'te\".csv", "semi;colon.csv", "-rf.csv", "back\\slash.csv", "{0} ${HOME} {{ x }}.csv",
        "\x1b[31mred.csv", "a|b.csv", "ti\tab.csv", "*.csv",
        "[x].csv", "~.csv", "x" * 240 + ".csv", "far/down/here/a.csv", "no space at end .csv",
    ]  # fmt: skip
    rows = {deep.deliver(name, f"id,note\n{number},x\n"): 1 for number, name in enumerate(names)}
    deep.run()
    deep.require_all_taken(rows)
    assert deep.datops("load", "list").exit_code == 0
    assert deep.datops("pipeline", "plan", "--config", "pipeline.yaml").exit_code == 0


def test_a_name_cannot_pass_for_a_sentence_or_move_the_cursor(orders: Landing) -> None:
    orders.deliver("\x1b[31mred\x1b[2J\nall is well.csv.gz", b"x")
    said = orders.datops("pipeline", "run", "--config", "pipeline.yaml").stderr
    said += orders.datops("load", "list").stdout
    assert "\x1b" not in said
    assert r"orders/\x1b[31mred\x1b[2J\nall is well.csv.gz: the gzip data is" in said
    assert not any(line.startswith("all is well") for line in said.splitlines())


def test_a_name_that_is_no_utf_8_is_shown_escaped_and_loaded(orders: Landing) -> None:
    orders.put(os.fsdecode(b"orders/caf\xe9.csv"), ROWS)
    orders.run()
    orders.require_taken(r"orders/caf\xe9.csv", rows=1)
    assert orders.run().table("orders")["files_loaded"] == 0


def test_the_same_content_under_two_names_is_loaded_twice_and_noted(orders: Landing) -> None:
    """Two deliveries are two deliveries; the key makes one row of them."""
    paths = [orders.deliver(name, ROWS) for name in ("first.csv", "second.csv")]
    orders.run()
    orders.require_all_taken(dict.fromkeys(paths, 1))
    query = """
        select o.path, s.path from datops.loads o join datops.loads s on s.load_id = o.same_content_as
    """
    assert orders.warehouse.fetch(query) == [("orders/second.csv", "orders/first.csv")]
    assert [row for row in orders.silver("orders", "id") if row[0] < 1000] == [(1,)]


def test_a_hard_link_is_a_file_of_its_own(orders: Landing) -> None:
    path = orders.deliver("first.csv", ROWS)
    (orders.project / "landing/orders/linked.csv").hardlink_to(orders.project / "landing" / path)
    orders.run()
    orders.require_all_taken({path: 1, "orders/linked.csv": 1})


def test_a_link_out_of_the_folder_is_refused(deep: Landing, outside: Path) -> None:
    """Whoever may deliver files could else have any file of the machine read."""
    folder = deep.project / "landing/orders"
    (folder / "link.csv").symlink_to(outside)
    (folder / "relative.csv").symlink_to("../../outside/secret.csv")
    deep.require_all_refused(
        deep.run(expect=1),
        {
            f"orders/{name}.csv": "is a link out of the source's folder; copy the file"
            for name in ("link", "relative")
        },
    )
    assert outside.read_text() == "id,note\n66,secret\n"


def test_a_folder_linked_from_outside_is_refused_file_by_file(orders: Landing, outside: Path) -> None:
    orders.declare("orders", orders.tables["orders"].replace("orders/*", "'orders*/*'"))
    (orders.project / "landing/orders_too").symlink_to(outside.parent)
    said = "is a link out of the source's folder"
    orders.require_refused(orders.run(expect=1), "orders_too/secret.csv", said)


def test_a_link_within_the_folder_is_a_file(deep: Landing) -> None:
    path = deep.deliver("here/a.csv", ROWS)
    (deep.project / "landing/orders/latest.csv").symlink_to("here/a.csv")
    deep.run()
    deep.require_all_taken({path: 1, "orders/latest.csv": 1})


def test_links_that_lead_nowhere_or_in_a_circle_are_refused(deep: Landing) -> None:
    folder = deep.project / "landing/orders"
    (folder / "loop.csv").symlink_to("loop.csv")
    (folder / "gone.csv").symlink_to("nowhere")
    (folder / "self").symlink_to(".")
    said = "is a link that leads nowhere; deliver the file itself"
    deep.require_all_refused(deep.run(expect=1), {"orders/loop.csv": said, "orders/gone.csv": said})


def test_a_pipe_is_refused_without_waiting_for_it(deep: Landing) -> None:
    os.mkfifo(deep.project / "landing/orders/pipe.csv")
    deep.require_refused(deep.run(expect=1), "orders/pipe.csv", "is no file but a pipe")


def test_a_folder_where_a_file_is_expected_is_refused_with_the_pattern_that_would_read_it(
    orders: Landing,
) -> None:
    orders.declare("orders", orders.tables["orders"].replace("orders/*", "orders/*.csv"))
    orders.deliver("spark.csv/part-0.csv", ROWS)
    orders.require_refused(orders.run(expect=1), "orders/spark.csv", "is a folder, a file was expected")


def test_a_folder_whose_files_are_taken_is_no_problem(deep: Landing) -> None:
    path = deep.deliver("spark.csv/part-0.csv", ROWS)
    deep.run()
    deep.require_taken(path, rows=1)


def test_a_file_that_no_format_fits_does_not_stop_the_others(events: Landing) -> None:
    sentences = {
        events.deliver(name, "what?"): "its ending names no format"
        for name in ("README", "Thumbs.db", "a.docx")
    }
    events.require_all_refused(events.run(expect=1), sentences)


def test_files_that_are_hidden_or_still_being_written_wait(orders: Landing) -> None:
    for name in (".hidden.csv", "a.csv.tmp", "b.csv.part", "c.csv~", ".staging/d.csv"):
        orders.deliver(name, ROWS)
    orders.run()
    orders.require_all_taken({})


def test_a_missing_folder_is_no_success(platform: Platform) -> None:
    platform.declare("orders", "files: orders/*.csv")
    shutil.rmtree(platform.project / "landing")
    answer = platform.datops(*RUN)
    assert answer.exit_code == 1
    assert "landing" in answer.said
    assert "does not exist" in answer.said


def test_a_file_as_the_folder_is_no_success(platform: Platform) -> None:
    platform.declare("orders", "files: orders/*.csv")
    shutil.rmtree(platform.project / "landing")
    (platform.project / "landing").write_text("a file")
    assert platform.datops(*RUN).exit_code == 1


def without_privileges(platform: Platform, expect: int) -> str:
    """Run the document as somebody whom permissions concern: root reads everything."""
    prefix: list[str] = []
    if os.geteuid() == 0:
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("root reads every file, and there is no setpriv to give that up")
        prefix = [setpriv, "--bounding-set", "-dac_override,-dac_read_search"]
    done = subprocess.run(
        [*prefix, sys.executable, "-c", MAIN, *RUN],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout


def test_files_and_folders_without_permission_are_refused_and_named(orders: Landing) -> None:
    orders.declare("orders", orders.tables["orders"].replace("orders/*", "'**/*.csv'"))
    path = orders.deliver("shut.csv", ROWS)
    orders.deliver("private/hidden.csv", ROWS)
    (orders.project / "landing" / path).chmod(0)
    (orders.project / "landing/orders/private").chmod(0)
    try:
        said = without_privileges(orders, expect=1)
    finally:
        (orders.project / "landing/orders/private").chmod(0o700)
    assert f"{path} cannot be opened: Permission denied; check its permissions" in said
    assert "orders/private/ is a folder that cannot be looked into; check its permissions" in said
    orders.require_accounted("orders", {"orders/good.csv": 2, path: 0, "orders/private/": 0})
    assert orders.silver("orders", "id") == [(1001,), (1002,)]
