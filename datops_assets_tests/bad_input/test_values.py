"""Values that a type cannot hold exactly: set aside with a reason, never bent into something else."""

from __future__ import annotations

import random

from datops_assets_tests.bad_input.conftest import Landing, Platform

TYPES = {
    "bigint": [
        "9223372036854775808",
        "-9223372036854775809",
        "9" * 400,
        "1e3",
        "0x10",
        "1_000",
        "--5",
        "٣",
        "1.5",
    ],
    "numeric(12,2)": ["99999999999.00", "1.005", "1e400", "NaN", "Infinity", "-inf", "1,5", "1e-400"],
    "double": ["1e400", "-1e400", "nan", "Infinity", "1e-400", "1e99999999"],
    "date": [
        "0000-00-00",
        "2024-02-30",
        "infinity",
        "-infinity",
        "now",
        "today",
        "epoch",
        "01/02/03",
        "0001-01-01 BC",
    ],
    "timestamp": [
        "0000-00-00 00:00:00",
        "2024-01-01 25:00:00",
        "infinity",
        "now",
        "2024-13-01 00:00:00",
        "allballs",
    ],
    "timestamptz": [
        "0000-00-00T00:00:00Z",
        "2024-01-01T00:00:00+99",
        "2024-01-01T00:00:00",
        "infinity",
        "tomorrow",
    ],
    "time": ["25:00", "24:00:01", "allballs", "now"],
    "boolean": ["maybe", "2", "10", "-1"],
    "uuid": ["not-a-uuid", "00000000-0000-0000-0000-00000000000", "{}"],
    "json": ["{", "{'a': 1}", "NaN", "[1,]"],
}


def test_a_value_that_its_type_cannot_hold_exactly_is_set_aside(platform: Platform) -> None:
    """One table for each type, all in one run."""
    for number, (kind, values) in enumerate(TYPES.items()):
        columns = f"{{id: {{type: bigint}}, v: {{type: '{kind}'}}}}"
        platform.declare(f"t{number}", f"files: {number}.csv\ncontract: {{key: [id], columns: {columns}}}")
        lines = [f'{n},"{value}"' for n, value in enumerate(values)]
        platform.put(f"{number}.csv", "\n".join(["id,v", *lines, "1000,"]))
    platform.run()
    for number, values in enumerate(TYPES.values()):
        reasons = platform.refused(f"t{number}", f"{number}.csv")
        assert len(reasons) == len(values)
        assert all(reason.startswith("v: not ") for reason in reasons)
        assert platform.silver(f"t{number}", "id", "v") == [(1000, None)]


def test_a_key_too_long_for_an_index_is_set_aside(orders: Landing) -> None:
    """An index holds 2,700 bytes: one such value must not keep all others from silver."""
    contract = "{key: [note, id], columns: {id: {type: bigint}, note: {type: text}}}"
    orders.declare("orders", f"files: orders/*\nformat: csv\ncontract: {contract}")
    draw = random.Random(1)
    long = "".join(chr(draw.randrange(0x4E00, 0x9FFF)) for _ in range(4000))
    path = orders.deliver("long.csv", f"id,note\n1,x\n2,{long}\n")
    orders.run()
    orders.require_taken(path, rows=2)
    assert len(orders.refused("orders", path)) == 1
    assert (1, "x") in orders.silver("orders", "id", "note")


def test_a_huge_json_number_keeps_its_digits_in_bronze(events: Landing) -> None:
    huge = "1" * 500
    path = events.deliver("huge.jsonl", f'{{"id": {huge}, "note": 1e400}}\n')
    events.run()
    events.require_taken(path, rows=1)
    query = "select id::text, note::text from bronze.store_events order by _load_id, _row"
    assert events.warehouse.fetch(query)[-1] == (huge, "1e400")
    assert events.refused("events", path) == ["id: not a whole number (bigint)"]
