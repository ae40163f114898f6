"""A warehouse whose server crashes while batches are committed without waiting for its disk."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from datops_assets.cdc import lease, stream_changes
from datops_assets.postgres.migrations import upgrade
from datops_assets.resources.warehouse import Warehouse
from datops_assets_tests.cdc.conftest import followed_on
from datops_assets_tests.cdc.servers import OwnServer, own_server
from datops_assets_tests.cdc.test_streaming import count, until
from datops_assets_tests.conftest import TestWarehouse


@pytest.fixture
def warehouse_server() -> Iterator[OwnServer]:
    """A server that lets written log lie in memory for ten seconds."""
    with own_server(18, wal_writer_delay="10s", wal_writer_flush_after="0") as server:
        yield server


def in_catalogue(server: OwnServer) -> TestWarehouse:
    conn = server.warehouse.connect()
    upgrade(conn)
    return TestWarehouse(server.warehouse, conn)


@pytest.mark.cdc_case(42)
def test_a_crash_loses_rows_and_place_together_and_the_source_still_has_them(
    server: Warehouse, warehouse_server: OwnServer
) -> None:
    with followed_on(server, in_catalogue(warehouse_server)) as followed:
        followed.run("create table t (id int primary key, v text)")
        followed.follow("t")
        followed.snapshot()
        ended = threading.Event()

        def work() -> None:
            with closing(followed.warehouse.connect()) as conn, lease(conn, "erp"):
                try:
                    stream_changes(
                        conn, followed.parameters, followed.stream,
                        stopping=lambda: False, report=lambda _: None, every_s=0.02,
                    )  # fmt: skip
                except psycopg.OperationalError:
                    ended.set()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        followed.run("insert into t select n, 'a' from generate_series(1, 100) n")
        until(lambda: count(followed) == 100)
        warehouse_server.stop("immediate")
        until(ended.is_set)
        thread.join()
        warehouse_server.start()
        followed.warehouse = in_catalogue(warehouse_server)

        assert count(followed) == 0, "the server had it on disk, so nothing was shown here"
        followed.require_acknowledged()
        followed.drain()
        followed.require_equal()
        assert len(followed.log("t")) == 100

        # What a drain brought is on disk when it returns.
        followed.run("update t set v = 'b'")
        followed.drain()
        warehouse_server.stop("immediate")
        warehouse_server.start()
        followed.warehouse = in_catalogue(warehouse_server)
        followed.require_equal()
        assert len(followed.log("t")) == 200
        followed.warehouse.conn.close()
