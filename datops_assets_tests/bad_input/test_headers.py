"""Headers that collide with our names, with each other, or with SQL: every value keeps a place of its own."""

from __future__ import annotations

import json

import pytest

from datops_assets_tests.bad_input.conftest import Landing


def columns(orders: Landing) -> dict[tuple[str, int], str]:
    """(delivered name, which one of that name): its bronze column."""
    rows = orders.warehouse.fetch("select delivered, occurrence, name from datops.columns order by position")
    return {(delivered, occurrence): name for delivered, occurrence, name in rows}


def test_a_column_named_like_one_of_ours_gets_another_name(orders: Landing) -> None:
    ours = ["_load_id", "_row", "_more", "ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"]
    path = orders.deliver("ours.csv", f"id,{','.join(ours)},note\n1,{','.join(ours)},x\n")
    orders.run()
    orders.require_taken(path, rows=1)
    assert {name: columns(orders)[name, 1] for name in ours} == {name: f"{name}_" for name in ours}
    assert tuple(ours) in orders.bronze("orders", *(f"{name}_" for name in ours))


NAMES = [
    'a"; drop table bronze.store_orders; --',
    "'); delete from datops.loads; --",
    "%s %(x)s {} {0} $1 :x",
    "\\",
    "two\nlines",
    "tab\there",
    "select",
    "x" * 200,
    "名前",
    "\u202eid",
    " ",
    "0",
    "${HOME}",
    "{{ 7 * 7 }}",
]


def test_a_name_is_a_name_whatever_it_spells(orders: Landing) -> None:
    quoted = ",".join('"' + name.replace('"', '""') + '"' for name in NAMES)
    values = [f"v{n}" for n in range(len(NAMES))]
    path = orders.deliver("named.csv", f"id,{quoted},note\n1,{','.join(values)},x\n")
    orders.run()
    orders.require_taken(path, rows=1)
    assert tuple(values) in orders.bronze("orders", *(columns(orders)[name, 1] for name in NAMES))


def test_json_names_are_names_whatever_they_spell(events: Landing) -> None:
    path = events.deliver("named.jsonl", json.dumps({"id": 1, **{name: name for name in NAMES}}) + "\n")
    events.run()
    events.require_taken(path, rows=1)
    assert tuple(NAMES) in events.bronze("events", *(columns(events)[name, 1] for name in NAMES))


def test_names_that_differ_past_63_bytes_stay_apart(orders: Landing) -> None:
    path = orders.deliver("long.csv", f"id,note,{'k' * 80}1,{'k' * 80}2\n1,x,first,second\n")
    orders.run()
    orders.require_taken(path, rows=1)
    first, second = (columns(orders)["k" * 80 + end, 1] for end in "12")
    assert ("first", "second") in orders.bronze("orders", first, second)


def test_duplicate_and_empty_names_each_keep_their_values(orders: Landing) -> None:
    path = orders.deliver("twice.csv", "id,a,a,,,a_2,note,\n1,b,c,d,e,f,x,g\n")
    orders.run()
    orders.require_taken(path, rows=1)
    found = columns(orders)
    assert len(set(found.values())) == len(found)
    order = [("a", 1), ("a", 2), ("", 1), ("", 2), ("a_2", 1), ("", 3)]
    assert tuple("bcdefg") in orders.bronze("orders", *(found[one] for one in order))
    assert (1, "x") in orders.silver("orders", "id", "note")


def test_a_trailing_comma_in_the_header_is_a_column_without_a_name(orders: Landing) -> None:
    path = orders.deliver("trailing.csv", "id,note,\n1,x,\n2,y,z\n3,w\n")
    orders.run()
    orders.require_taken(path, rows=2, damaged={3: ("2 fields where the header has 3", b"3,w")})
    assert ("2", "z") in orders.bronze("orders", "id", "column")


def test_1600_columns_keep_every_value_and_the_contract_finds_the_last(orders: Landing) -> None:
    """PostgreSQL has no room for so many; what is past 250 goes into one column, not away."""
    names = [f"c{n}" for n in range(1598)]
    path = orders.deliver(
        "wide.csv", ",".join([*names, "id", "note"]) + "\n" + ",".join([*names, "1", "x"]) + "\n"
    )
    orders.run()
    orders.require_taken(path, rows=1)
    ((row, more),) = orders.warehouse.fetch(
        "select to_json(b), _more from bronze.store_orders b where c0 = 'c0'"
    )
    values = {**row, **more}
    assert all(values[name] == name for name in names)
    assert (1, "x") in orders.silver("orders", "id", "note")


def test_a_json_record_of_1600_names_keeps_every_value(events: Landing) -> None:
    record = {**{f"c{n}": n for n in range(1600)}, "id": 1, "note": "x"}
    path = events.deliver("wide.jsonl", json.dumps(record) + "\n")
    events.run()
    events.require_taken(path, rows=1)
    assert (1, "x") in events.silver("events", "id", "note")


@pytest.mark.parametrize("width", [251, 300])
def test_a_known_name_behind_many_new_ones_keeps_its_own_value(events: Landing, width: int) -> None:
    """Its place in the record is not its place among the columns that bronze has room for."""
    events.deliver("a_narrow.jsonl", '{"id": 2, "note": "y"}\n')
    events.run()
    record = {**{f"c{n}": n for n in range(width)}, "id": 1, "note": "x"}
    events.deliver("b_wide.jsonl", json.dumps(record) + "\n")
    events.run()
    assert [row for row in events.silver("events", "id", "note") if row[0] < 1000] == [(1, "x"), (2, "y")]


def test_a_header_in_other_clothes_means_the_same_columns(orders: Landing) -> None:
    path = orders.deliver("dressed.csv", "NOTE, Id \nx,1\n")
    orders.run()
    orders.require_taken(path, rows=1)
    assert (1, "x") in orders.silver("orders", "id", "note")


def test_a_header_that_cannot_be_read_refuses_the_file(orders: Landing) -> None:
    cases = {
        "nul": (b"id,no\0te\n1,x\n", "the header cannot be read: a NUL byte"),
        "latin": ("id,nöte\n1,x\n".encode("latin-1"), "the header cannot be read: bytes that are not utf-8"),
        "quote": (b'id,"note\n1,x\n', "the header cannot be read: a quote is not closed"),
    }
    sentences = {orders.deliver(f"{name}.csv", content): said for name, (content, said) in cases.items()}
    orders.require_all_refused(orders.run(expect=1), sentences)
