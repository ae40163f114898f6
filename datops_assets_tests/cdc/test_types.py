"""Every built-in type through snapshot and stream, as insert, update and delete: the text is the same on both sides."""

from __future__ import annotations

import pytest

from datops_assets_tests.cdc.conftest import Followed

VALUES: dict[str, list[str]] = {
    # case 1
    "boolean": ["true", "false"],
    "smallint": ["-32768", "32767"],
    "integer": ["-2147483648", "2147483647"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "oid": ["0", "4294967295"],
    "real": ["'NaN'", "'Infinity'", "'-Infinity'", "'-0'", "1e-45", "3.4028235e38"],
    "double precision": ["'NaN'", "'Infinity'", "'-Infinity'", "'-0'", "5e-324", "1.7976931348623157e308"],
    # case 2
    "numeric": [
        "'NaN'", "'Infinity'", "'-Infinity'", "1.10", "1.1", "0.000", "('1' || repeat('0', 131071))::numeric",
        "('0.' || repeat('0', 16382) || '1')::numeric",
    ],
    "numeric(38,9)": ["1.500000000", "-99999999999999999999999999999.999999999"],
    "numeric(5,-2)": ["12300"],
    # cases 3 and 4
    "date": ["'infinity'", "'-infinity'", "'4713-01-01 BC'", "'5874897-12-31'", "'1500-02-28'"],
    "timestamp": ["'infinity'", "'4713-01-01 00:00:00 BC'", "'294246-01-01 00:00:00'", "'2026-01-01 00:00:00.000001'"],
    "timestamptz": ["'-infinity'", "'4713-01-02 00:00:00+00 BC'", "'2026-03-29 02:30:00.123456+02'"],
    "time": ["'24:00:00'", "'00:00:00.000001'"],
    "timetz": ["'24:00:00-15:59'", "'12:00:00+05:30'"],
    "interval": ["'-1 year 2 mons -3 days 04:05:06.000007'", "'178000000 years'", "'0'"],
    # case 5
    "text": ["''", "'\\N'", "E'a\\\\Nb\\t\\n\\r\"''\\\\'", "'\U0001f600 ü'"],
    "varchar(9)": ["''", "'a  '"],
    "char(5)": ["'a'", "''"],
    "name": ["'x'"],
    '"char"': ["'a'", "''"],
    # case 6
    "bytea": ["''", "'\\x00'", "(select string_agg(set_byte('\\x00', 0, n), '') from generate_series(0, 255) n)",
              "decode(repeat('00ff', 524288), 'hex')"],
    # case 7
    "json": ['\'{"b": 1,  "a": 2, "b": 3}\'', "'null'", "'[]'"],
    "jsonb": ['\'{"b": 1,  "a": 2, "b": 3}\'', "'null'", "'1e400'"],
    # case 8
    "integer[]": ["'{}'", "'{1,NULL,3}'", "'{{1,2},{3,4}}'", "'[0:1]={7,8}'"],
    "text[]": ["array['a,b', '\"', '{', 'NULL', '', null]"],
    "numeric[]": ["array[1.10, 'NaN']"],
    "timestamptz[]": ["array['2026-01-01 00:00:00+00'::timestamptz]"],
    "bytea[]": ["array['\\x00'::bytea, '']"],
    "jsonb[]": ["array['{\"a\": 1}'::jsonb, null]"],
    # case 11
    "int4range": ["'empty'", "'[1,5)'", "'(,)'"],
    "tstzrange": ["'[2026-01-01 00:00:00+00,)'"],
    "int8multirange": ["'{[1,2),[5,9)}'"],
    "inet": ["'10.0.0.1/24'", "'::1'"],
    "cidr": ["'10.0.0.0/8'"],
    "macaddr": ["'08:00:2b:01:02:03'"],
    "macaddr8": ["'08:00:2b:01:02:03:04:05'"],
    "bit(3)": ["'101'"],
    "varbit": ["'1'", "''"],
    "uuid": ["'00000000-0000-0000-0000-000000000000'"],
    "money": ["'12.34'"],
    "tsvector": ["'a:1A b:2'"],
    "tsquery": ["'a & !b'"],
    "point": ["'(1.5,-2)'"],
    "polygon": ["'((0,0),(1,1),(2,0))'"],
    "pg_lsn": ["'16/B374D848'"],
    "xid8": ["'18446744073709551615'"],
    "jsonpath": ["'$.a[*]'"],
}  # fmt: skip


def test_every_built_in_type_through_snapshot_and_stream(followed: Followed) -> None:
    names = {kind: f"t{number}" for number, kind in enumerate(VALUES)}
    for kind, name in names.items():
        followed.run(f"create table {name} (id int primary key, v {kind}, w {kind})")
        followed.run(f"alter table {name} replica identity full")
        for number, value in enumerate(VALUES[kind]):
            followed.run(f"insert into {name} values ({number}, {value}, null)")
    followed.follow(*names.values())
    followed.snapshot()
    followed.require_equal()
    for kind, name in names.items():
        for number, value in enumerate(VALUES[kind]):
            followed.run(f"insert into {name} values ({number + 100}, {value}, null)")
            followed.run(f"update {name} set w = {value} where id = {number}")
    followed.drain()
    followed.require_equal()
    for kind, name in names.items():
        followed.run(f"delete from {name} where id >= {100 + len(VALUES[kind]) // 2}")
        followed.run(f"update {name} set id = id + 1000 where id < 100")
    followed.drain()
    followed.require_equal()


def test_types_of_the_source_s_own_arrive_as_text(followed: Followed) -> None:
    """Cases 9, 10 and 12: enums, domains, composites; what has no binary form that travels is sent as text."""
    followed.run("create schema other; create type mood as enum ('sad', 'happy')")
    followed.run("create type other.mood as enum ('blue')")
    followed.run("create domain amount as numeric check (value >= 0); create domain price as amount")
    followed.run("create type pair as (a int, b text)")
    followed.run(
        "create table t (id int primary key, m mood, o other.mood, ms mood[], p price, ps price[], c pair, cs pair[],"
        " r regclass, acl aclitem)"
    )
    row = "'{sad,happy}', 1.10, array[2.50::price], (1, E'a\\t\"b\\\\'), array[(1, 'x')::pair], 'pg_class', null"
    followed.run(f"insert into t values (1, 'sad', 'blue', {row})")
    followed.follow("t")
    followed.snapshot()
    followed.require_equal()
    followed.run(f"insert into t values (2, 'happy', null, {row}); update t set m = 'happy' where id = 1")
    followed.drain()
    followed.require_equal()
    followed.run("alter type mood add value 'new'")
    followed.run("update t set m = 'new', ms = '{new}' where id = 1")
    followed.drain()
    followed.require_equal()


def test_an_enum_alone_needs_no_text_mode(followed: Followed) -> None:
    followed.run("create type mood as enum ('sad', 'happy'); create domain price as numeric")
    followed.run(
        "create table t (id int primary key, m mood, p price); insert into t values (1, 'sad', 1.10)"
    )
    followed.follow("t")
    followed.snapshot()
    followed.run("insert into t values (2, 'happy', 'NaN'); update t set m = null where id = 1")
    followed.drain()
    followed.require_equal()


def test_a_column_that_must_travel_as_text_may_come_later(followed: Followed) -> None:
    followed.run("create type pair as (a int, b text); create table t (id int primary key, v bytea)")
    followed.run("insert into t values (1, '\\x00ff')")
    followed.follow("t")
    followed.snapshot()
    followed.run("insert into t values (2, '\\x01')")
    followed.run("alter table t add c pair; insert into t values (3, '\\x02', (1, 'x'))")
    followed.drain()
    followed.require_equal()


@pytest.mark.parametrize("name", ['"Select"', '"a b.c%d"', '"ünï"', f'"{"n" * 63}"', '"_op"'])
def test_any_name_of_a_column(followed: Followed, name: str) -> None:
    """Case 24."""
    followed.run(f"create table t (id int primary key, {name} text); insert into t values (1, 'a')")
    followed.follow("t")
    followed.snapshot()
    followed.run(f"update t set {name} = 'b'; insert into t values (2, 'c')")
    followed.drain()
    followed.require_equal()
