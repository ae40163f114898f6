"""What preflight says of real servers that are set wrong, and that the snapshot refuses what preflight stops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from datops_assets.cdc import Finding, preflight
from datops_assets.cdc.preflight import Usage, judge_server
from datops_assets.cdc.source import SourceServer
from datops_assets.errors import SourceRefusedError
from datops_assets_tests.cdc.conftest import Followed, followed_on
from datops_assets_tests.cdc.servers import OwnServer, own_server
from datops_assets_tests.conftest import TestWarehouse


def look(followed: Followed) -> dict[str, Finding]:
    """Findings by what they are about; of several the gravest."""
    found: dict[str, Finding] = {}
    for finding in sorted(
        preflight(followed.parameters, followed.stream), key=lambda f: ["ok", "warn", "stop"].index(f.verdict)
    ):
        found[finding.what] = finding
    return found


@pytest.fixture
def reader(followed: Followed) -> Iterator[Followed]:
    """A source with a table, seen by a role that may replicate and nothing else."""
    role = f"reader_{followed.database.dbname[-20:]}"
    followed.run(
        f"create role {role} login replication password 'r'; create table t (id int primary key, v text)"
    )
    followed.run("insert into t values (1, 'a')")
    followed.follow("t")
    yield replace(followed, database=replace(followed.database, user=role, password="r"))
    followed.run(f"drop owned by {role}; drop role {role}")


@pytest.fixture(scope="module")
def set_wrong() -> Iterator[OwnServer]:
    with own_server(
        18, wal_level="replica", max_replication_slots="1", max_wal_senders="3", wal_sender_timeout="5s",
        idle_replication_slot_timeout="600",
    ) as server:  # fmt: skip
        with closing(server.warehouse.connect()) as conn:
            conn.execute("select pg_create_physical_replication_slot('taken')")
        yield server


def test_every_setting_that_is_wrong_has_its_sentence(set_wrong: OwnServer, warehouse: TestWarehouse) -> None:
    with followed_on(set_wrong.warehouse, warehouse) as followed:
        followed.run("create table t (id int primary key)")
        followed.follow("t")
        found = look(followed)
        assert {what: finding.verdict for what, finding in found.items() if finding.verdict != "ok"} == {
            "wal_level": "stop",
            "replication slots": "stop",
            "max_slot_wal_keep_size": "warn",
            "wal_sender_timeout": "warn",
            "idle_replication_slot_timeout": "warn",
        }
        assert found["wal_level"].mend == "alter system set wal_level = logical; then restart the source"
        assert found["replication slots"].found == "1 of 1 slots are taken"
        assert found["max_slot_wal_keep_size"].found.startswith("no limit")
        assert found["wal_sender_timeout"].found == "5000 ms: a stream that is busy is cut off"
        followed.run("alter system set max_slot_wal_keep_size = '100MB'")
        followed.run("alter system set max_wal_senders = 1")
        followed.run("alter system set wal_sender_timeout = 0")
        followed.source.close()
        set_wrong.settings = {"wal_level": "logical", "max_replication_slots": "4"}
        set_wrong.stop()
        set_wrong.start()
        followed.source = followed.database.connect()
        found = look(followed)
        assert found["max_slot_wal_keep_size"].found == "100 MB: a stream that stands still that long is lost"
        assert found["wal senders"].verdict == "warn"
        assert found["wal_sender_timeout"].found.startswith("no limit")
        followed.run("alter system reset all")
        set_wrong.stop()
        set_wrong.start(max_slot_wal_keep_size="2GB")
        followed.source = followed.database.connect()
        assert {finding.verdict for finding in look(followed).values()} == {"ok"}


def test_versions_before_14_are_refused() -> None:
    old = SourceServer(130012, 1, 1, "logical", False, True, {
        "max_replication_slots": "9", "max_wal_senders": "9", "max_slot_wal_keep_size": "9000",
        "wal_sender_timeout": "60000",
    })  # fmt: skip
    stops = [f for f in judge_server(old, Usage(0, 0, False, False, True, "r")) if f.verdict == "stop"]
    assert [(f.what, f.found) for f in stops] == [("version", "PostgreSQL 13")]


def test_every_right_that_is_missing_has_its_sentence(reader: Followed) -> None:
    role = reader.database.user
    found = look(reader)
    assert (
        found["public.t"].mend
        == f"grant usage on schema public to {role}; grant select on public.t to {role}"
    )
    assert found["publication"].verdict == "stop"
    with pytest.raises(SourceRefusedError, match="let the tables' owner run: create publication"):
        reader.snapshot()
    reader.run(found["publication"].mend)
    with pytest.raises(
        SourceRefusedError, match=rf"{role} may not read public\.t; on the source: grant select"
    ):
        reader.snapshot()
    reader.run(found["public.t"].mend)
    assert {finding.verdict for finding in look(reader).values()} <= {"ok", "warn"}
    reader.snapshot()
    reader.require_equal()
    reader.run(f"alter role {role} noreplication")
    assert look(reader)["replication"].mend == f"alter role {role} replication"
    reader.run(f"alter role {role} replication; revoke usage on schema public from public, {role}")
    assert look(reader)["public.t"].verdict == "stop"
    reader.run("grant usage on schema public to public")


def test_rows_that_a_policy_hides_are_never_missing_silently(reader: Followed) -> None:
    role = reader.database.user
    reader.run(
        f"grant select on t to {role}; create publication datops_erp for table t;"
        " alter table t enable row level security; create policy few on t using (id > 100)"
    )
    finding = look(reader)["public.t"]
    assert (finding.verdict, finding.mend) == ("stop", f"alter role {role} bypassrls")
    with pytest.raises(
        SourceRefusedError, match=rf"hides rows of public\.t from {role}.*alter role {role} bypassrls"
    ):
        reader.snapshot()
    reader.run(finding.mend)
    reader.snapshot()
    reader.require_equal()


@pytest.mark.cdc_case(18, 19)
@pytest.mark.parametrize(
    ("ddl", "mend"),
    [
        ("create table t (a int)", "give it a primary key"),
        ("create table t (a int); alter table t replica identity full", "give it a primary key"),
        (
            "create table t (a int primary key); alter table t replica identity nothing",
            "replica identity default",
        ),
    ],
)
def test_a_table_that_has_no_key_is_not_published(followed: Followed, ddl: str, mend: str) -> None:
    """Once it were published, the source would refuse the updates of whoever writes there."""
    followed.run(ddl)
    followed.follow("t")
    assert mend in look(followed)["public.t"].mend
    with pytest.raises(SourceRefusedError, match=mend):
        followed.snapshot()
    followed.run("insert into t values (1); update t set a = 2")


@pytest.mark.cdc_case(25)
@pytest.mark.parametrize(
    ("ddl", "said"),
    [
        ("create view t as select 1 as id", "is a view"),
        ("create materialized view t as select 1 as id", "is a materialized view"),
        ("create unlogged table t (id int primary key)", "is unlogged, so the log has no change of it"),
        ("create sequence t", "is a sequence"),
    ],
)
def test_what_has_no_changes_in_the_log_is_named(followed: Followed, ddl: str, said: str) -> None:
    followed.run(ddl)
    followed.follow("t")
    assert [f.found for f in preflight(followed.parameters, followed.stream) if f.what == "public.t"] == [
        said
    ]
    with pytest.raises(SourceRefusedError, match=rf"public\.t {said}"):
        followed.snapshot()


@pytest.mark.cdc_case(25)
def test_what_is_written_to_unlogged_and_temporary_tables_never_arrives(followed: Followed) -> None:
    followed.run("create table t (id int primary key); create unlogged table u (id int primary key)")
    followed.run("create temp table t2 (id int primary key); create materialized view m as select * from t")
    followed.follow("t")
    followed.snapshot()
    followed.run("insert into t values (1); insert into u values (1); insert into t2 values (1)")
    followed.run("refresh materialized view m")
    assert followed.drain().tables == {"t": 1}
    followed.require_equal()


@pytest.mark.cdc_case(33)
def test_children_by_inheritance_are_tables_of_their_own(followed: Followed) -> None:
    """Said once by preflight; neither copied nor published with their parent, followed where they are named."""
    followed.run("create table t (id int primary key, v text); create table child (w int) inherits (t)")
    followed.run("create table named (primary key (id)) inherits (t)")
    followed.run(
        "insert into t values (1, 'a'); insert into child values (2, 'b', 3); insert into named values (3, 'c')"
    )
    followed.follow("t", "named")
    said = [f.found for f in preflight(followed.parameters, followed.stream) if "inheritance" in f.found]
    assert said == ["its children by inheritance have rows of their own, which do not arrive: child"]
    assert followed.snapshot().rows == {"t": 1, "named": 1}
    followed.run("update t set v = 'x'; insert into child values (4, 'd', 5)")
    followed.drain()
    mirrors = "select id, v from bronze.erp_t union all select id, v from bronze.erp_named order by 1"
    assert followed.warehouse.fetch(mirrors) == [(1, "x"), (3, "x")]
