"""Publications that somebody else made: used as they are, and refused where they would bend the mirror."""

from __future__ import annotations

import pytest

from datops_assets.cdc import preflight
from datops_assets.cdc.snapshot import end_stream
from datops_assets.errors import SourceRefusedError
from datops_assets_tests.cdc.conftest import Followed


def test_one_of_somebody_else_is_added_to_and_never_dropped(followed: Followed) -> None:
    followed.run("create table a (id int primary key, n int); create table b (id int primary key)")
    followed.run("create publication datops_erp for table a where (id > 5)")
    followed.follow("b")
    followed.snapshot()
    query = "select tablename, rowfilter from pg_publication_tables where pubname = 'datops_erp' order by 1"
    assert followed.source.execute(query).fetchall() == [("a", "(id > 5)"), ("b", None)]
    end_stream(followed.warehouse.conn, followed.parameters, followed.stream)
    assert len(followed.source.execute(query).fetchall()) == 2


def test_our_own_ends_with_the_stream(followed: Followed) -> None:
    followed.run("create table a (id int primary key)")
    followed.follow("a")
    followed.snapshot()
    end_stream(followed.warehouse.conn, followed.parameters, followed.stream)
    assert followed.source.execute("select count(*) from pg_publication").fetchone() == (0,)


@pytest.mark.cdc_case(29)
def test_rows_of_partitions_must_come_as_their_root_s(followed: Followed) -> None:
    """Case 29, publish_via_partition_root off: its changes would be those of tables that nobody follows."""
    followed.run("create table t (id int primary key) partition by range (id)")
    followed.run("create table t1 partition of t default; create publication datops_erp for table t")
    followed.follow("t")
    with pytest.raises(SourceRefusedError, match=r"set \(publish_via_partition_root = true\)"):
        followed.snapshot()
    stops = [f.mend for f in preflight(followed.parameters, followed.stream) if f.verdict == "stop"]
    assert stops == ["alter publication datops_erp set (publish_via_partition_root = true)"]


@pytest.mark.cdc_case(28)
def test_a_publication_of_inserts_only_is_warned_of(followed: Followed) -> None:
    """Case 28: what is published arrives."""
    followed.run("create table t (id int primary key, v text); insert into t values (1, 'a')")
    followed.run("create publication datops_erp for table t with (publish = 'insert')")
    followed.follow("t")
    found = [f.found for f in preflight(followed.parameters, followed.stream) if f.verdict == "warn"]
    assert "publishes no update, delete, truncate: the mirror keeps what the source no longer has" in found
    followed.snapshot()
    followed.run("insert into t values (2, 'b'); update t set v = 'x'; delete from t where id = 1")
    followed.drain()
    assert followed.warehouse.fetch("select id, v from bronze.erp_t order by 1") == [(1, "a"), (2, "b")]
    followed.run("insert into t values (3, 'c'); delete from t where id = 3; insert into t values (3, 'd')")
    followed.drain()
    assert followed.warehouse.fetch("select v from bronze.erp_t where id = 3") == [("d",)]
