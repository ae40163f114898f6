"""The shop's tables: their files, columns and keys. No data, and no numpy: declarations read it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal

Kind = Literal["int", "money", "time", "time_ms", "text", "bool", "json"]
Format = Literal["csv", "json", "jsonl", "parquet"]


@dataclass(frozen=True)
class Column:
    """One column: how its values are held, and what they refer to.

    kind        int; money (cents); time (seconds since 1970, UTC); time_ms (milliseconds);
                text; bool; json (a text that already is JSON)
    optional    an int of 0, or a text of None, stands for null
    references  the table whose key this column holds
    """

    name: str
    kind: Kind
    optional: bool = False
    references: str | None = None


@dataclass(frozen=True)
class Table:
    """One table and its files: one a day, or a single file where the pattern names no day.

    first_version  the columns that an old version of a record differs in, and what they held
                   then: ("=", text) a text, ("@", column) the value of another column
    """

    name: str
    pattern: str
    format: Format
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    first_version: tuple[tuple[str, str, str], ...] = ()

    @property
    def daily(self) -> bool:
        """Whether there is one file a day."""
        return "{day}" in self.pattern

    def path(self, day: date) -> str:
        """Name the file of a day, below the shop's folder."""
        return self.pattern.format(day=day.isoformat())

    def column(self, name: str) -> Column:
        """Look a column up; KeyError where there is none of that name."""
        return {column.name: column for column in self.columns}[name]


CUSTOMERS = Table(
    name="customers",
    pattern="customers/customers-{day}.csv",
    format="csv",
    key=("customer_id",),
    columns=(
        Column("customer_id", "int"),
        Column("email", "text"),
        Column("full_name", "text"),
        Column("country", "text"),
        Column("segment", "text"),
        Column("signed_up_at", "time"),
        Column("updated_at", "time"),
    ),
    first_version=(("segment", "=", "consumer"), ("updated_at", "@", "signed_up_at")),
)
PRODUCTS = Table(
    name="products",
    pattern="products/products.json",
    format="json",
    key=("product_id",),
    columns=(
        Column("product_id", "int"),
        Column("sku", "text"),
        Column("name", "text"),
        Column("category", "text"),
        Column("price", "money"),
        Column("currency", "text"),
        Column("active", "bool"),
        Column("attributes", "json"),
    ),
)
ORDERS = Table(
    name="orders",
    pattern="orders/orders-{day}.csv",
    format="csv",
    key=("order_id",),
    columns=(
        Column("order_id", "int"),
        Column("customer_id", "int", references="customers"),
        Column("status", "text"),
        Column("ordered_at", "time"),
        Column("updated_at", "time"),
        Column("currency", "text"),
        Column("items_count", "int"),
        Column("total", "money"),
    ),
    first_version=(("status", "=", "placed"), ("updated_at", "@", "ordered_at")),
)
ORDER_ITEMS = Table(
    name="order_items",
    pattern="order_items/order_items-{day}.csv",
    format="csv",
    key=("order_id", "line_no"),
    columns=(
        Column("order_id", "int", references="orders"),
        Column("line_no", "int"),
        Column("product_id", "int", references="products"),
        Column("quantity", "int"),
        Column("unit_price", "money"),
        Column("line_total", "money"),
    ),
)
PAYMENTS = Table(
    name="payments",
    pattern="payments/payments-{day}.parquet",
    format="parquet",
    key=("payment_id",),
    columns=(
        Column("payment_id", "int"),
        Column("order_id", "int", references="orders"),
        Column("method", "text"),
        Column("amount", "money"),
        Column("paid_at", "time"),
        Column("status", "text"),
    ),
)
WEB_EVENTS = Table(
    name="web_events",
    pattern="web_events/events-{day}.jsonl",
    format="jsonl",
    key=("event_id",),
    columns=(
        Column("event_id", "text"),
        Column("occurred_at", "time_ms"),
        Column("session_id", "text"),
        Column("customer_id", "int", optional=True, references="customers"),
        Column("type", "text"),
        Column("url", "text"),
        Column("product_id", "int", optional=True, references="products"),
        Column("properties", "json"),
    ),
)

TABLES: dict[str, Table] = {
    table.name: table for table in (CUSTOMERS, PRODUCTS, ORDERS, ORDER_ITEMS, PAYMENTS, WEB_EVENTS)
}
