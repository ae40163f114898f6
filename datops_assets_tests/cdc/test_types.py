"""Every built-in type through snapshot and stream, as insert, update and delete: the text is the same on both sides."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datops_assets_tests.cdc.conftest import Followed, followed_on
from datops_assets_tests.cdc.servers import own_server
from datops_assets_tests.conftest import TestWarehouse

VALUES: dict[str, list[str]] = {
    # case 1
    "boolean": ["true", "false"],
    "smallint": ["-32768", "32767"],
    "integer": ["-2147483648", "2147483647"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "oid": ["0", "4294967295"],
    "real": ["'NaN'", "'Infinity'", "'-Infinity'", "'-0'", "1e-45", "1.1754942e-38", "3.4028235e38"],
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
    "line": ["'{1,2,3}'"],
    "circle": ["'<(1,2),3>'"],
    "path": ["'[(0,0),(1,1)]'", "'((0,0),(1,1))'"],
    "box": ["'(1,1),(0,0)'"],
    "lseg": ["'[(0,0),(1,1)]'"],
    "txid_snapshot": ["'10:20:10,14'"],
    "pg_snapshot": ["'10:20:10,14'"],
    "tid": ["'(7,9)'"],
}  # fmt: skip


@pytest.mark.cdc_case(1, 2, 3, 4, 5, 6, 7, 8, 11)
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


@pytest.mark.cdc_case(8)
def test_arrays_of_every_scalar(followed: Followed) -> None:
    """Empty, with NULLs, in two dimensions, from another lower bound, through insert, update and delete."""
    scalars = {kind: values for kind, values in VALUES.items() if not kind.endswith("[]") and kind != "bytea"}
    columns = {kind: f"c{number}" for number, kind in enumerate(scalars)}
    wide = ", ".join(f"{column} {kind}[]" for kind, column in columns.items())
    followed.run(f"create table t (id int primary key, {wide}); alter table t replica identity full")
    forms = [
        lambda kind, values: f"array[{', '.join(f'({value})::{kind}' for value in values)}, null]",
        lambda kind, values: f"array[[({values[0]})::{kind}, null], [null, ({values[-1]})::{kind}]]",
        lambda kind, values: f"array_fill(({values[0]})::{kind}, array[2, 1], array[-1, 5])",
        lambda kind, values: f"'{{}}'::{kind}[]",
        lambda kind, values: f"null::{kind}[]",
    ]
    rows = [", ".join(form(kind, values) for kind, values in scalars.items()) for form in forms]
    for number, row in enumerate(rows):
        followed.run(f"insert into t values ({number}, {row})")
    followed.follow("t")
    followed.snapshot()
    followed.require_equal()
    for number, row in enumerate(rows):
        followed.run(f"insert into t values ({100 + number}, {row})")
        followed.run(
            f"update t set ({', '.join(columns.values())}) = row({row}) where id = {(number + 1) % len(rows)}"
        )
    followed.run("delete from t where id = 101; update t set id = 1000 where id = 0")
    followed.drain()
    followed.require_equal()


@pytest.mark.cdc_case(5)
def test_every_byte_of_a_char(followed: Followed) -> None:
    followed.run('create table t (id int primary key, c "char")')
    followed.follow("t")
    followed.snapshot()
    followed.run(
        'insert into t select n, n::"char" from generate_series(-128, 127) n; alter table t add r regclass'
    )
    followed.drain()
    followed.run("insert into t select 1000 + n, n::\"char\", 't' from generate_series(-128, 127) n")
    followed.drain()
    followed.require_equal()


@pytest.mark.cdc_case(9, 10, 11, 12)
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
    row = "'{sad,happy}', 1.10, array[2.50::price], (1, E'a\\t\"b\\\\'), array[(1, 'x')::pair], 'pg_class',"
    row += " makeaclitem(10, 10, 'SELECT', true)"
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


@pytest.mark.cdc_case(9)
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


@pytest.mark.cdc_case(12)
def test_a_column_that_must_travel_as_text_may_come_later(followed: Followed) -> None:
    followed.run("create type pair as (a int, b text); create table t (id int primary key, v bytea)")
    followed.run("insert into t values (1, '\\x00ff')")
    followed.follow("t")
    followed.snapshot()
    followed.run("insert into t values (2, '\\x01')")
    followed.run("alter table t add c pair; insert into t values (3, '\\x02', (1, 'x'))")
    followed.drain()
    followed.require_equal()


@pytest.mark.cdc_case(24)
@pytest.mark.parametrize("name", ['"Select"', '"a b.c%d"', '"ünï"', f'"{"n" * 63}"', '"_op"'])
def test_any_name_of_a_column(followed: Followed, name: str) -> None:
    """Case 24."""
    followed.run(f"create table t (id int primary key, {name} text); insert into t values (1, 'a')")
    followed.follow("t")
    followed.snapshot()
    followed.run(f"update t set {name} = 'b'; insert into t values (2, 'c')")
    followed.drain()
    followed.require_equal()


# Case 13: what each type's own text form says, any value of it. As JSON, which needs no quoting of ours.
_texts = st.text(alphabet=st.characters(exclude_characters="\0", codec="utf-8"), max_size=30)
_whole = st.integers(-(2**63), 2**63 - 1)
_days = st.one_of(
    st.dates().map(str), st.sampled_from(["infinity", "-infinity", "4713-01-01 BC", "5874897-12-31"])
)
_moments = st.one_of(
    st.datetimes().map(str), st.sampled_from(["infinity", "-infinity", "0044-03-15 00:00:00 BC"])
)
_numbers = st.one_of(
    st.decimals(allow_nan=False, allow_infinity=False, places=20).map(str),
    st.sampled_from(["NaN", "Infinity", "-Infinity", "1.10", "0.000"]),
)
ANY = {
    "b": ("boolean", st.booleans()),
    "i": ("bigint", _whole),
    "f": (
        "double precision",
        st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.just("NaN"), st.just("-0")),
    ),
    "r": ("real", st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)),
    "n": ("numeric", _numbers),
    "d": ("date", _days),
    "m": ("timestamp", _moments),
    "z": ("timestamptz", _moments),
    "h": ("interval", st.integers(-(10**9), 10**9).map(lambda n: f"{n % 97} mons {n % 31} days {n} us")),
    "t": ("text", _texts),
    "y": ("bytea", st.binary(max_size=30).map(lambda v: "\\x" + v.hex())),
    "j": (
        "jsonb",
        st.recursive(st.one_of(st.none(), _whole, _texts), lambda inner: st.lists(inner, max_size=3)),
    ),
    "u": ("uuid", st.uuids().map(str)),
    "a": ("int[]", st.lists(st.integers(-9, 9), max_size=4).map(lambda v: "{" + ",".join(map(str, v)) + "}")),
    "o": ("int4range", st.integers(-99, 99).map(lambda n: f"[{n},{n + 5})")),
    "p": ("inet", st.ip_addresses().map(str)),
}
_row = st.fixed_dictionaries({name: st.one_of(st.none(), values) for name, (_, values) in ANY.items()})


@pytest.mark.cdc_case(13)
@pytest.mark.parametrize("form", ["binary", "text"])
def test_any_value_of_any_type(followed: Followed, form: str) -> None:
    """Case 13: rows that nobody thought of, as snapshot, insert, update, moved key; in both forms of the stream."""
    import json

    columns = ", ".join(f"{name} {kind}" for name, (kind, _) in ANY.items())
    followed.run("create type pair as (a int, b date)")
    followed.run(f"create table t (id int primary key, {columns}{', c pair' if form == 'text' else ''})")
    followed.run(f"alter database {followed.database.dbname} set datestyle = 'German'")
    followed.run(f"alter database {followed.database.dbname} set extra_float_digits = -5")
    followed.run(f"alter database {followed.database.dbname} set intervalstyle = 'sql_standard'")
    followed.follow("t")
    names = ", ".join(ANY)
    insert = f"insert into t (id, {names}) select %s, {names} from jsonb_populate_record(null::t, %s::jsonb)"
    followed.snapshot()
    number = 0

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(_row, min_size=1, max_size=25), st.booleans())
    def hold(rows: list[dict[str, object]], begins_anew: bool) -> None:
        nonlocal number
        for row in rows:
            number += 1
            followed.source.execute(insert, (number, json.dumps(row)))
        if begins_anew:
            followed.snapshot()
        followed.run(
            f"update t set id = -id where id > {number - 3}; update t set n = n + 1 where id % 3 = 0"
        )
        followed.drain()
        followed.require_equal()

    hold()


@pytest.mark.cdc_case(5)
def test_a_source_with_another_encoding(followed: Followed) -> None:
    """Case 5: what is one byte there is two here, in values and in names."""
    name = f"{followed.database.dbname}_latin"
    with followed.database.connect() as admin:
        admin.execute(f"create database {name} encoding 'latin1' locale 'C' template template0")
    other = followed.database.at(name)
    with closing(other.connect()) as source:
        latin = replace(followed, database=other, source=source)
        latin.stream = replace(followed.stream, slot=f"{name[-40:]}_x")
        latin.run("create table t (id int primary key, \"größe\" text); insert into t values (1, 'üß')")
        latin.follow("t")
        latin.snapshot()
        latin.run(
            "insert into t values (2, 'é'); alter table t add c regclass; insert into t values (3, 'ñ', 't')"
        )
        latin.drain()
        latin.require_equal()
        source.execute("select pg_drop_replication_slot(%s)", (latin.stream.slot,))
    with followed.database.connect() as admin:
        admin.execute(f"drop database {name} with (force)")


@pytest.fixture
def yen(tmp_path_factory: pytest.TempPathFactory, warehouse: TestWarehouse) -> Iterator[Followed]:
    """A source whose money has no decimal places; skips where no such locale can be made."""
    with own_server(18) as server:
        folder = server.folder / "locales"
        folder.mkdir()
        command = ["localedef", "-c", "-i", "ja_JP", "-f", "UTF-8", str(folder / "ja_JP.UTF-8")]
        if shutil.which("localedef") is None or not Path("/usr/share/i18n/locales/ja_JP").exists():
            pytest.skip("there is no localedef with its sources here (Debian: the package locales)")
        subprocess.run(command, check=False, capture_output=True)  # its warnings count as failure
        server.account.take_all(server.folder)
        server.stop()
        server.environment["LOCPATH"] = str(folder)
        server.start(lc_monetary="ja_JP.UTF-8")
        with followed_on(server.warehouse, warehouse) as followed:
            yield followed


@pytest.mark.cdc_case(11)
@pytest.mark.slow
def test_money_of_a_currency_without_decimal_places(yen: Followed) -> None:
    """Its bytes count yen, and the warehouse would read them as hundredths: it arrives as the source prints it."""
    yen.run("create table t (id int primary key, paid money, parts money[])")
    yen.run("insert into t values (1, 1234, array[5, null]::money[])")
    assert yen.source.execute("select paid::numeric::text from t").fetchone() == ("1234",)
    yen.follow("t")
    yen.snapshot()
    yen.run(
        "insert into t values (2, -99, null); update t set paid = paid * 2 where id = 1; delete from t where id = 2"
    )
    yen.run("insert into t values (3, 7, '{}')")
    yen.drain()
    yen.require_equal()
    (kind,) = yen.warehouse.fetch("select pg_typeof(paid)::text from bronze.erp_t limit 1")[0]
    assert kind == "text"
