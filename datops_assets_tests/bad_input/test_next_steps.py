"""What a sentence tells a person to do is enough: nothing else is needed to get the file in."""

from __future__ import annotations

import codecs
import re

from datops_assets_tests.bad_input.conftest import Answer, Landing


def commands(answer: Answer) -> list[list[str]]:
    """The datops commands that the problems of a run name."""
    return [command.split() for command in re.findall(r"datops ((?:load|pipeline) \w+ \w+)", answer.problems)]


def test_an_undeclared_utf_16_file_loads_once_declared(orders: Landing) -> None:
    path = orders.deliver("wide.csv", codecs.BOM_UTF16_LE + "id,note\n1,ä\n".encode("utf-16-le"))
    orders.require_refused(orders.run(expect=1), path, "state `csv: {encoding: utf-16}`")
    orders.deliver("good.csv", "id,note\n1001,a\n1002,b\n".encode("utf-16"))
    orders.declare("orders", orders.tables["orders"] + "\ncsv: {encoding: utf-16}")
    orders.run()
    orders.require_taken(path, rows=1)


def test_a_json_document_loads_once_its_records_are_named(events: Landing) -> None:
    path = events.deliver("items.json", '{"items": [{"id": 1, "note": "x"}]}')
    events.require_refused(events.run(expect=1), path, "state `records:` with the path to the array")
    events.declare("events", events.tables["events"] + "\nrecords: items")
    events.run()
    events.require_taken(path, rows=1)


def test_a_changed_file_that_is_refused_comes_in_by_the_commands_named(orders: Landing) -> None:
    orders.declare("orders", orders.tables["orders"] + "\nchanged_file: refuse")
    path = orders.deliver("final.csv", "id,note\n1,x\n")
    orders.run()
    orders.deliver("final.csv", "id,note\n2,y\n")
    answer = orders.run(expect=1)
    assert (1, "x") in orders.silver("orders", "id", "note")
    for command in commands(answer):
        assert orders.datops(*command).exit_code == 0
    orders.run()
    assert [row for row in orders.silver("orders", "id", "note") if row[0] < 1000] == [(2, "y")]
    assert orders.loads("orders")[path][:3] == ("loaded", 1, 0)
