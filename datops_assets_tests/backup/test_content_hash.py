"""The content hash sees every value of every type, and nothing of how rows lie or how a session prints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from datops_assets.backup import facts
from datops_assets_tests.conftest import TestWarehouse

# Pairs that an index, a hash index or a careless text would call the same.
DIFFERENT = [
    ("bool", "true", "false"),
    ("smallint", "1", "-1"),
    ("int", "1", "null"),
    ("bigint", "0", "4294967297"),  # both halves the same: a hash that folds them sees 0
    ("bigint", "-1", "4294967295"),
    ("numeric", "1.0", "1.00"),
    ("numeric", "'nan'", "'infinity'"),
    ("real", "'0'", "'-0'"),
    ("double precision", "'0'", "'-0'"),
    ("double precision", "0.1", "0.1 + 1.3877787807814457e-17"),
    ("text", "'a'", "'a '"),
    ("text", "''", "null"),
    ('text collate "nocase"', "'ß'", "'SS'"),
    ('text collate "nocase"', "'a'", "'A'"),
    ("varchar(9)", "'a'", "'a '"),
    ("bpchar", "'a'", "'a '"),
    ("bytea", r"'\\x00'", r"'\\x0000'"),
    ("date", "'infinity'", "'-infinity'"),
    ("time", "'00:00'", "'24:00'"),
    ("timetz", "'12:00+00'", "'13:00+01'"),
    ("timestamp", "'2026-01-01'", "'2026-01-01 00:00:00.000001'"),
    ("timestamptz", "'2026-01-01Z'", "'2026-01-01 00:00:00.000001Z'"),
    ("interval", "'30 days'", "'1 month'"),
    ("uuid", "'00000000-0000-0000-0000-000000000000'", "'00000000-0000-0000-0000-000000000001'"),
    ("json", """'{"a": 1}'""", """'{"a":1}'"""),
    ("jsonb", """'{"a": 1.0}'""", """'{"a": 1.00}'"""),
    ("point", "'(0,0)'", "'(0,1)'"),
    ("inet", "'10.0.0.1'", "'10.0.0.1/31'"),
    ("int[]", "'{1,2}'", "'{{1,2}}'"),
    ("int[]", "'{1,2}'", "'[0:1]={1,2}'"),
    ("text[]", """'{"null"}'""", "'{null}'"),
    ("numeric[]", "'{1.0}'", "'{1.00}'"),
    ("int4range", "'[1,2)'", "'(,2)'"),
    ("numrange", "'[1.0,2]'", "'[1.00,2]'"),
    ("tsvector", "'a:1'", "'a:2'"),
    ("bit(4)", "'0001'", "'0010'"),
    ("money", "'1.00'", "'1.01'"),
    ("pg_lsn", "'0/1'", "'0/2'"),
    ("oid", "1", "2"),
    ('"char"', "'a'", "'b'"),
    ("name", "'a'", "'b'"),
    ("hash_state", "'open'", "'paid'"),
    ("hash_pair", "'(1,2)'", "'(2,1)'"),
    ("hash_amount", "1.0", "1.00"),
]


@pytest.fixture
def conn(warehouse: TestWarehouse) -> Iterator[psycopg.Connection[Any]]:
    """A prepared connection with types of its own."""
    with closing(warehouse.connect()) as conn:
        conn.execute("create schema kinds; set search_path = kinds")
        conn.execute("create type hash_state as enum ('open', 'paid')")
        conn.execute("create type hash_pair as (a int, b int)")
        conn.execute("create domain hash_amount as numeric")
        try:
            conn.execute(
                "create collation nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
            )
        except (
            psycopg.errors.FeatureNotSupported
        ):  # a server without ICU has none that calls letters the same
            conn.execute("create collation nocase (provider = libc, locale = 'C')")
        yield conn
        conn.execute("drop schema kinds cascade")


def content(conn: psycopg.Connection[Any], table: str) -> list[Any]:
    facts.prepare(conn)
    (found,) = [one for one in facts.read_tables(conn) if one.name == table]
    hashed = facts.hash_table(conn, found)
    conn.execute("set search_path = kinds")
    return hashed


def test_every_type_tells_values_apart_that_look_alike(conn: psycopg.Connection[Any]) -> None:
    for number, (of_type, *pair) in enumerate(DIFFERENT):
        found = []
        for side, value in enumerate(pair):
            conn.execute(f"create table t{number}_{side} (v {of_type})")
            conn.execute(f"insert into t{number}_{side} values ({value}), (null)")
            found.append(content(conn, f"t{number}_{side}"))
        assert found[0][0] == found[1][0] == 2
        assert found[0][1] != found[1][1], of_type


def test_columns_that_swap_their_values_are_seen(conn: psycopg.Connection[Any]) -> None:
    conn.execute("create table a as select 1 as x, 2 as y, null::int as z")
    conn.execute("create table b as select 2 as x, 1 as y, null::int as z")
    conn.execute("create table c as select 1 as x, null::int as y, 2 as z")
    assert len({content(conn, name)[1] for name in "abc"}) == 3


def test_a_row_that_is_twice_there_counts_twice(conn: psycopg.Connection[Any]) -> None:
    conn.execute("create table once as select 'x'::text as v")
    conn.execute("create table thrice as select 'x'::text as v from generate_series(1, 3)")
    assert int(content(conn, "thrice")[1]) == 3 * int(content(conn, "once")[1])


def test_neither_session_nor_dropped_columns_nor_order_change_it(conn: psycopg.Connection[Any]) -> None:
    conn.execute(
        "create table first as select i, i / 3.0::float8 as f, timestamptz '2026-01-01' + i * interval '1 h' as at,"
        " decode(md5(i::text), 'hex') as raw, interval '1 mon' * i as span from generate_series(1, 100) i"
    )
    before = content(conn, "first")
    conn.execute("create table second (gone int, like first)")
    conn.execute("alter table second drop column gone")
    conn.execute("insert into second select * from first order by i desc")
    conn.execute("set timezone = 'Asia/Kathmandu'; set datestyle = 'SQL, DMY'; set extra_float_digits = -5")
    conn.execute("set bytea_output = 'escape'; set intervalstyle = 'iso_8601'")
    assert content(conn, "second") == before


def test_a_table_without_columns_and_one_with_the_most_are_hashed(conn: psycopg.Connection[Any]) -> None:
    conn.execute("create table nothing (); insert into nothing default values")
    assert content(conn, "nothing")[0] == 1
    conn.execute(f"create table wide ({', '.join(f'c{i} int' for i in range(1600))})")
    conn.execute("insert into wide (c0, c1599) values (1, 2)")
    assert content(conn, "wide")[0] == 1


def test_bytes_that_are_no_text_do_not_stop_it(
    conn: psycopg.Connection[Any], warehouse: TestWarehouse
) -> None:
    """A database in SQL_ASCII holds whatever it was given."""
    name = f"{warehouse.warehouse.dbname}_ascii"
    conn.execute(f"create database {name} encoding 'SQL_ASCII' template template0 locale 'C'")
    try:
        with closing(warehouse.warehouse.at(name).connect()) as raw:
            raw.execute("set client_encoding = 'SQL_ASCII'")
            raw.execute(
                rb"create table latin as select convert_from('\xfc'::bytea, 'SQL_ASCII') as v, 'a'::name as n"
            )
            raw.execute("set client_encoding = 'UTF8'")
            facts.prepare(raw)
            (table,) = [one for one in facts.read_tables(raw) if one.name == "latin"]
            assert facts.hash_table(raw, table)[0] == 1
    finally:
        conn.execute(f"drop database {name} with (force)")
