"""A MariaDB's types: each value is hashed alike on both sides, or read to be compared."""

from __future__ import annotations

import pytest

from datops_assets_tests.cdc.query.conftest import Queried

VALUES = {
    "tinyint": ("-128", "127"),
    "tinyint unsigned zerofill": ("0", "255"),
    "smallint unsigned": ("0", "65535"),
    "mediumint": ("-8388608", "8388607"),
    "int unsigned": ("0", "4294967295"),
    "bigint": ("-9223372036854775808", "9223372036854775807"),
    "bigint unsigned": ("0", "18446744073709551615"),
    "decimal(38,9)": ("0.000000001", "-99999999999999999999999999999.999999990"),
    "decimal(10,2)": ("1.10", "-0.50"),
    "bit(64)": ("b'0'", "b'" + 64 * "1" + "'"),
    "year": ("1901", "2155"),
    "date": ("'0001-01-01'", "'9999-12-31'"),
    "datetime": ("'2024-02-29 23:59:59'", "'0001-01-01 00:00:00'"),
    "datetime(6)": ("'2024-02-29 23:59:59.000100'", "'2024-02-29 23:59:59'"),
    "timestamp(3) null": ("'2024-02-29 23:59:59.120'", "'2001-01-01 00:00:01'"),
    "time(2)": ("'-838:59:59.00'", "'00:00:00.10'"),
    "char(5)": ("'a  '", "''"),
    "varchar(20)": ("'1:x;N'", "'né 🜚'"),
    "varchar(20) character set latin1": ("'né'", "'Né'"),
    "longtext": ("repeat('é', 700)", "repeat('è', 700)"),
    "enum('a','é')": ("'a'", "'é'"),
    "set('a','b')": ("'a,b'", "''"),
    "binary(4)": ("'a'", "'b'"),
    "blob": ("x'00ff5c27'", "''"),
    "uuid": ("'123e4567-e89b-12d3-a456-426655440000'", "'123e4567-e89b-12d3-a456-426655440001'"),
    "inet6": ("'::1'", "'2001:db8::ff00:42:8329'"),
}


def test_values_of_each_type_are_hashed_alike_and_their_changes_seen(maria: Queried) -> None:
    columns = {f"c{n}": type_ for n, type_ in enumerate(VALUES)}
    maria.run(
        f"create table orders (id int primary key, {', '.join(f'{c} {t}' for c, t in columns.items())})"
    )
    first, second = (", ".join(values[n] for values in VALUES.values()) for n in (0, 1))
    rows = ", ".join(f"({n}, {first})" for n in range(3, 400))
    maria.run(f"insert into orders values (1, {first}), (2, {second}), {rows}")
    maria.run("insert into orders (id) values (1000)")
    maria.follow()
    maria.snapshot()
    assert (maria.drain().rows_read, maria.drain().changes) == ({"orders": 0}, 0)
    for name, (_, after) in zip(columns, VALUES.values(), strict=True):
        maria.run(f"update orders set {name} = {after} where id = 1")
        done = maria.drain()
        assert done.changes == 1, columns[name]
        assert done.rows_read["orders"] < 200
    shown = ", ".join(name for name, type_ in columns.items() if type_ not in ("blob", "binary(4)"))
    assert maria.mirror(f"{shown}", "orders")  # readable
    (one, two) = maria.warehouse.fetch(
        f"select {', '.join(columns)} from bronze.erp_orders where id in (1, 2)"
    )
    assert one == two


@pytest.mark.parametrize("type_", ["float", "double"])
def test_rows_with_binary_fractions_are_read_to_be_compared(maria: Queried, type_: str) -> None:
    maria.run(f"create table orders (id int primary key, value {type_})")
    maria.run("insert into orders values (1, 0.1), (2, 1e20), (3, -0.0)")
    maria.follow()
    maria.snapshot()
    maria.run("update orders set value = 0.3 where id = 1; ")
    done = maria.drain()
    assert (done.changes, done.rows_read) == (1, {"orders": 3})
    assert maria.drain().changes == 0


def test_a_row_that_the_server_cannot_hash_is_read(maria: Queried) -> None:
    """Past max_allowed_packet its text is null there."""
    maria.run("create table orders (id int primary key, a longblob)")
    maria.run("insert into orders values (1, repeat('a', 9000000))")
    maria.follow()
    maria.snapshot()
    maria.run("update orders set a = repeat('b', 9000000)")
    assert maria.drain().changes == 1


def test_a_date_that_is_none_is_followed_as_text(maria: Queried) -> None:
    maria.run("create table orders (id int primary key, day date, at datetime(3))")
    maria.run("set sql_mode = ''")
    maria.run("insert into orders values (1, '0000-00-00', '0000-00-00 00:00:00'), (2, '2024-01-01', now(3))")
    maria.follow(as_text=("day", "at"))
    maria.snapshot()
    assert maria.drain().rows_read == {"orders": 0}
    maria.run("update orders set day = '0000-00-00' where id = 2")
    assert maria.drain().changes == 1
    assert maria.mirror("id, day") == [(1, "0000-00-00"), (2, "0000-00-00")]
