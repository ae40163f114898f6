"""Types of extensions: as the source prints them, through snapshot and stream."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from datops_assets_tests.cdc.conftest import Followed, followed_on
from datops_assets_tests.cdc.servers import OwnServer, have_extension, own_server
from datops_assets_tests.conftest import TestWarehouse

VALUES = {
    "citext": ("citext", ["'Ünï'", "''", r"'\N'"]),
    "hstore": ("hstore", ['\'a=>1, "b c"=>NULL, ""=>""\'', "''"]),
    "ltree": ("ltree", ["'Top.Science.Astronomy'", "''"]),
    "cube": ("cube", ["'(1,2),(3,4)'"]),
    "isn": ("isbn13", ["'978-0-393-04002-9'"]),
    "seg": ("seg", ["'1.50 .. 2'"]),
    "postgis": ("geometry", ["'SRID=4326;POINT(1.5 -2)'", "'POLYGON((0 0,1 0,1 1,0 0))'", "'POINT EMPTY'"]),
}


@pytest.fixture(scope="module")
def debian() -> Iterator[OwnServer]:
    with own_server(15) as server:
        yield server


def hold(followed: Followed, extension: str, kind: str, values: list[str]) -> None:
    followed.run(f"create extension {extension}")
    followed.run(f"create table t (id int primary key, v {kind}, vs {kind}[], n int)")
    rows = "".join(
        f"insert into t values ({number}, {value}, array[{value}, null]::{kind}[], 0);"
        for number, value in enumerate(values)
    )
    followed.run(rows + "insert into t values (90, null, null, 0); alter table t replica identity full")
    followed.follow("t")
    followed.snapshot()
    followed.require_equal()
    followed.run(rows.replace("values (", "values (10"))
    followed.run(f"update t set n = 1; update t set v = {values[-1]} where id = 90")
    followed.drain()
    followed.require_equal()
    followed.run("update t set id = -id where id > 90; delete from t where id < 5 and id >= 0")
    followed.drain()
    followed.require_equal()


@pytest.mark.slow
@pytest.mark.cdc_case(5, 11, 12)
@pytest.mark.parametrize("extension", VALUES)
def test_a_type_of_an_extension(debian: OwnServer, warehouse: TestWarehouse, extension: str) -> None:
    if not have_extension(debian.warehouse, extension):
        pytest.skip(f"{extension} is not on this machine")
    with followed_on(debian.warehouse, warehouse) as followed:
        hold(followed, extension, *VALUES[extension])


@pytest.mark.slow
@pytest.mark.cdc_case(11)
def test_xml_of_a_source_that_has_it(debian: OwnServer, warehouse: TestWarehouse) -> None:
    """The programs of the wheel cannot read xml; it must arrive, or be refused by name."""
    with followed_on(debian.warehouse, warehouse) as followed:
        followed.run(
            "create table t (id int primary key, v xml); insert into t values (1, '<a b=\"1\">ü &amp; </a>')"
        )
        followed.follow("t")
        followed.snapshot()
        followed.run(
            "insert into t values (2, 'text, no element'), (3, null); update t set v = '<c/>' where id = 1"
        )
        followed.drain()
        followed.require_equal()


@pytest.mark.cdc_case(11)
def test_vectors(followed: Followed) -> None:
    if not have_extension(followed.database, "vector"):
        pytest.skip("pgvector is not on this machine")
    hold(followed, "vector", "vector(3)", ["'[1,2.5,-0]'", "'[1e-30,0,3]'"])
