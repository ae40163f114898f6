"""`schema: freeze`: what a delivery with other columns does, and how a person lets it in."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datops_assets.ingestion import accept_columns, list_frozen_out, undo_load
from datops_assets.ingestion.schema_policy import is_within


@pytest.fixture
def frozen(lab):
    """A table of CSV files whose first one set the columns id and name."""
    lab.declare(schema_policy="freeze", pattern="*.csv")
    lab.write("1.csv", "id,name\n1,a\n")
    assert lab.load().failed == []
    return lab


def difference(lab) -> dict:
    """Load what is there and return how the one refused delivery differs."""
    (refused,) = lab.load().failed
    assert refused.state == "refused"
    assert lab.rows("count(*)", "1") == [(1,)]
    return refused.differences


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("id,name,mail", {"appeared": ["mail"]}),
        ("id", {"vanished": ["name"]}),
        ("id,Name", {"renamed": {"name": "Name"}}),
        ("id,title", {"appeared": ["title"], "vanished": ["name"]}),
        ("id,name,name", {"appeared": ["name (2)"]}),
    ],
)
def test_other_columns_are_refused_and_nothing_of_them_is_kept(frozen, header, found):
    frozen.write("2.csv", f"{header}\n{','.join('x' for _ in header.split(','))}\n")
    assert difference(frozen) == found
    known = frozen.warehouse.fetch("select delivered from datops.columns order by position")
    assert known == [("id",), ("name",)]


def test_another_order_is_no_difference(frozen):
    frozen.write("2.csv", "name,id\nb,2\n")
    assert frozen.load().failed == []
    assert frozen.values("id", "name") == [("1", "a"), ("2", "b")]


def test_the_sentence_names_the_columns_and_the_next_command(frozen):
    frozen.write("2.csv", "id,mail\n2,x\n")
    (refused,) = frozen.load().failed
    assert refused.error is not None
    assert "new: 'mail'; missing: 'name'" in refused.error
    assert "datops contract accept shop." in refused.error


def test_accepted_columns_come_in_with_the_next_run_and_are_the_known_ones_then(frozen):
    frozen.write("2.csv", "id,name,mail\n2,b,x\n")
    frozen.write("3.csv", "id,name,mail\n3,c,y\n")
    frozen.load()
    label = (frozen.table.source, frozen.table.name)
    accepted = accept_columns(frozen.warehouse.conn, *label)
    assert [(load.path, load.differences) for load in accepted] == [
        ("2.csv", {"appeared": ["mail"]}),
        ("3.csv", {"appeared": ["mail"]}),
    ]
    assert list_frozen_out(frozen.warehouse.conn, *label) == []
    assert frozen.load().failed == []
    assert frozen.values("id", "mail") == [("1", None), ("2", "x"), ("3", "y")]
    frozen.write("4.csv", "id,name\n4,d\n")
    assert frozen.load().failed[0].differences == {"vanished": ["mail"]}


def test_what_was_accepted_is_all_that_comes_in(frozen):
    frozen.write("2.csv", "id,name,mail\n2,b,x\n")
    frozen.load()
    accept_columns(frozen.warehouse.conn, frozen.table.source, frozen.table.name)
    frozen.write("2.csv", "id,name,mail,phone\n2,b,x,1\n")
    assert frozen.load().failed[0].differences == {"appeared": ["mail", "phone"]}


def test_a_refused_delivery_waits_until_somebody_decides(frozen):
    frozen.write("2.csv", "id,name,mail\n2,b,x\n")
    frozen.load()
    assert frozen.load().results == []


def test_evolve_lets_in_what_freeze_refused(frozen):
    frozen.write("2.csv", "id,name,mail\n2,b,x\n")
    frozen.load()
    frozen.declare(schema_policy="evolve")
    assert frozen.load().failed == []
    assert frozen.values("mail") == [(None,), ("x",)]


def test_an_undone_load_says_nothing_about_the_columns(frozen):
    frozen.declare(schema_policy="evolve")
    frozen.write("2.csv", "id,name,mail\n2,b,x\n")
    (loaded,) = frozen.load().results
    undo_load(frozen.warehouse.conn, loaded.ulid)
    frozen.declare(schema_policy="freeze")
    frozen.write("3.csv", "id,name\n3,c\n")
    assert frozen.load().failed == []


def test_json_has_no_header_so_only_new_names_are_refused(lab):
    lab.declare(schema_policy="freeze", pattern="*.jsonl")
    lab.write("1.jsonl", '{"id": 1, "name": "a"}\n')
    lab.write("2.jsonl", '{"id": 2}\n')
    assert lab.load().failed == []
    lab.write("3.jsonl", '{"id": 3, "mail": "x"}\n')
    assert lab.load().failed[0].differences == {"appeared": ["mail"]}


def test_a_type_that_would_widen_bronze_is_refused_and_one_that_fits_is_not(lab):
    lab.declare(schema_policy="freeze", pattern="*.parquet")

    def write(name: str, kind: pa.DataType) -> None:
        pq.write_table(pa.table({"id": pa.array([1], kind)}), lab.folder / name)

    write("1.parquet", pa.int32())
    write("2.parquet", pa.int16())
    assert lab.load().failed == []
    write("3.parquet", pa.int64())
    assert lab.load().failed[0].differences == {"retyped": {"id": "integer, now bigint"}}
    accept_columns(lab.warehouse.conn, lab.table.source, lab.table.name)
    assert lab.load().failed == []
    assert lab.warehouse.fetch("select type from datops.columns") == [("bigint",)]


@pytest.mark.parametrize(
    ("now", "taken", "within"),
    [
        ({"appeared": ["a"]}, {"appeared": ["a", "b"]}, True),
        ({"appeared": ["a"]}, {"vanished": ["a"]}, False),
        ({"renamed": {"a": "b"}}, {"renamed": {"a": "b"}}, True),
        ({"renamed": {"a": "b"}}, {"renamed": {"a": "c"}}, False),
        ({"retyped": {"a": "x"}}, {}, False),
        ({}, {}, True),
    ],
)
def test_a_difference_is_within_what_was_taken(now, taken, within):
    assert is_within(now, taken) is within
