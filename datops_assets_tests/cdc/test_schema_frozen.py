"""Case 58: `schema: freeze` stops one table's mirror until a person takes its columns; the others go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from typer.testing import CliRunner

from datops_assets.cli import _app
from datops_assets.components.streams.component import stream_definitions
from datops_assets_tests.cdc.conftest import Followed
from datops_assets_tests.cdc.test_stream_component import datops, document, erp

__all__ = ["erp"]


@pytest.mark.cdc_case(58)
@pytest.mark.parametrize("is_noticed_by", ["the catalogue", "the log"])
def test_a_frozen_table_stops_alone_and_goes_on_when_accepted(
    erp: Followed, project: Path, is_noticed_by: str
) -> None:
    erp.run("create table lines (id int primary key); insert into lines values (1)")
    file = project / "stream.yaml"
    file.write_text(file.read_text().replace("orders: {}", "orders: {schema: freeze}\n  lines: {}"))
    erp.follow("orders", "lines")
    conn = erp.warehouse.conn

    def mirror(table: str) -> list[tuple[Any, ...]]:
        return conn.execute(f"select * from bronze.erp_{table} order by 1").fetchall()

    datops("drain")
    if is_noticed_by == "the log":  # the difference is gone again when the drain begins
        erp.run("alter table orders add column paid bool; insert into orders values (2, 'b', true)")
        erp.run("alter table orders drop column paid")
    else:
        erp.run(
            "alter table orders add column paid bool default true; insert into orders values (2, 'b', null)"
        )
    erp.run("insert into lines values (2)")
    with dg.DagsterInstance.ephemeral() as instance:
        job = stream_definitions(document(project)).resolve_job_def("erp_stream")
        result = job.execute_in_process(instance=instance)
        (check,) = (one for one in result.get_asset_check_evaluations() if one.check_name == "schema")
    assert not check.passed
    assert "datops contract accept erp.orders" in (check.description or "")
    assert check.metadata["columns_changed"].value == {"appeared": ["paid"]}
    assert (mirror("orders"), mirror("lines")) == ([(1, "a")], [(1,), (2,)])
    erp.run("insert into orders values (3, 'c')")
    datops("drain")
    assert mirror("orders") == [(1, "a")]
    assert [op for (op,) in erp.log("orders", "_op::text")] == ["i", "i"]
    accepted = CliRunner().invoke(_app(), ["contract", "accept", "erp.orders", "--config", "stream.yaml"])
    assert "accepted; the next drain copies it anew" in accepted.output
    datops("drain")
    erp.run("update orders set note = 'z' where id = 3")
    datops("drain")
    erp.require_equal()
