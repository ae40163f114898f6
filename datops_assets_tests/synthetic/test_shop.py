"""The shop hangs together: keys, money, time, and the shapes of real trade."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from datops_assets.synthetic import ShopPlan, generate_shop
from datops_assets_tests.synthetic.reading import paths_of, read

PLAN = ShopPlan(seed=11, days=35, scale=0.3)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shop")
    generate_shop(PLAN, out)
    return out


def last_versions(shop: Path) -> dict[str, dict[str, Any]]:
    """Each order as the last file that has it says."""
    return {order["order_id"]: order for order in read(shop, "orders")}


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def day_of(path: Path) -> date:
    return date.fromisoformat(path.stem[-10:])


def test_paths_and_columns_are_those_that_pipelines_rely_on(shop):
    headers = {
        "customers": "customer_id,email,full_name,country,segment,signed_up_at,updated_at",
        "orders": "order_id,customer_id,status,ordered_at,updated_at,currency,items_count,total",
        "order_items": "order_id,line_no,product_id,quantity,unit_price,line_total",
    }
    for table, header in headers.items():
        with (shop / table / f"{table}-2026-01-01.csv").open(encoding="utf-8") as lines:
            assert next(lines) == header + "\n"
    assert list(read(shop, "products")[0]) == (
        "product_id sku name category price currency active attributes".split()
    )
    assert list(read(shop, "payments")[0]) == "payment_id order_id method amount paid_at status".split()
    assert list(read(shop, "web_events")[0]) == (
        "event_id occurred_at session_id customer_id type url product_id properties".split()
    )


def test_every_order_belongs_to_a_customer_delivered_on_or_before_its_day(shop):
    delivered: set[str] = set()
    signed_up: dict[str, datetime] = {}
    for customers, orders in zip(paths_of(shop, "customers"), paths_of(shop, "orders"), strict=True):
        with customers.open(encoding="utf-8", newline="") as lines:
            for customer in csv.DictReader(lines):
                delivered.add(customer["customer_id"])
                signed_up[customer["customer_id"]] = moment(customer["signed_up_at"])
        with orders.open(encoding="utf-8", newline="") as lines:
            for order in csv.DictReader(lines):
                assert order["customer_id"] in delivered
                assert signed_up[order["customer_id"]] <= moment(order["ordered_at"])


def test_items_add_up_to_the_order_to_the_cent(shop):
    items = defaultdict(list)
    for item in read(shop, "order_items"):
        assert Decimal(item["line_total"]) == Decimal(item["unit_price"]) * int(item["quantity"])
        items[item["order_id"]].append(item)
    orders = last_versions(shop)
    assert set(items) == set(orders)
    for order_id, order in orders.items():
        lines = items[order_id]
        assert [int(line["line_no"]) for line in lines] == list(range(1, int(order["items_count"]) + 1))
        assert sum(Decimal(line["line_total"]) for line in lines) == Decimal(order["total"])


def test_payments_match_their_orders(shop):
    payments = {payment["payment_id"]: payment for payment in read(shop, "payments")}
    of_order = defaultdict(Counter)
    for payment in payments.values():
        of_order[str(payment["order_id"])][payment["status"]] += 1
    orders = last_versions(shop)
    for payment in payments.values():
        assert payment["amount"] == Decimal(orders[str(payment["order_id"])]["total"])
        assert payment["paid_at"] > moment(orders[str(payment["order_id"])]["ordered_at"])
    settled = [order for order in orders.values() if moment(order["updated_at"]).date() < date(2026, 2, 3)]
    for order in settled:
        paid = of_order[order["order_id"]]
        assert paid["captured"] == (order["status"] not in ("placed", "cancelled"))
        assert paid["refunded"] == (order["status"] == "refunded")
        assert paid["failed"] >= (order["status"] == "cancelled")
    assert {order["status"] for order in orders.values()} >= {"refunded", "cancelled", "delivered"}


def test_an_order_comes_again_with_each_status_and_a_later_time(shop):
    versions = defaultdict(list)
    for path in paths_of(shop, "orders"):
        with path.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines))
        assert len({row["order_id"] for row in rows}) == len(rows)
        for row in rows:
            assert moment(row["updated_at"]).date() == day_of(path)
            versions[row["order_id"]].append(row)
    place = {"placed": 0, "paid": 1, "cancelled": 1, "shipped": 2, "delivered": 3, "refunded": 4}
    for rows in versions.values():
        assert [row["updated_at"] for row in rows] == sorted({row["updated_at"] for row in rows})
        places = [place[row["status"]] for row in rows]
        assert places == sorted(places)
        assert len({(row["customer_id"], row["ordered_at"], row["total"]) for row in rows}) == 1
    assert sum(len(rows) > 2 for rows in versions.values()) > len(versions) / 2


def test_customers_change_now_and_then(shop):
    versions = defaultdict(list)
    for customer in read(shop, "customers"):
        versions[customer["customer_id"]].append(customer)
    assert set(versions) == {str(number) for number in range(1, len(versions) + 1)}
    changed = [rows for rows in versions.values() if len(rows) > 1]
    assert len(changed) > 20
    for rows in changed:
        assert rows[0]["updated_at"] < rows[-1]["updated_at"]
        assert rows[0]["signed_up_at"] == rows[-1]["signed_up_at"]
    assert sum(rows[0]["email"] != rows[-1]["email"] for rows in changed) > 0


@pytest.mark.parametrize(
    ("table", "key", "time"),
    [
        ("payments", "payment_id", "paid_at"),
        ("web_events", "event_id", "occurred_at"),
    ],
)
def test_a_small_share_arrives_the_day_after_and_some_twice(shop, table, key, time):
    seen: dict[Any, dict[str, Any]] = {}
    late = twice = 0
    for path in paths_of(shop, table):
        for record in read_one(path, table):
            happened = record[time]
            happened = happened if isinstance(happened, datetime) else moment(happened)
            days_late = (day_of(path) - happened.astimezone(UTC).date()).days
            assert days_late in (0, 1)
            late += days_late
            if record[key] in seen:
                assert seen[record[key]] == record
                twice += 1
            seen[record[key]] = record
    assert 0.004 < late / len(seen) < 0.05
    assert 0 < twice < late


def read_one(path: Path, table: str) -> list[dict[str, Any]]:
    from datops_assets.synthetic.tables import TABLES
    from datops_assets_tests.synthetic.reading import records

    return list(records(path, TABLES[table]))


def test_every_purchase_event_names_its_order_and_only_orders_do(shop):
    orders = last_versions(shop)
    purchases = {}
    for event in read(shop, "web_events"):
        if event["type"] == "purchase":
            purchases[str(event["properties"]["order"]["id"])] = event
        else:
            assert "order" not in event["properties"]
        assert event["customer_id"] is None or event["customer_id"] > 0
        assert (event["product_id"] is not None) == (event["type"] in ("product_view", "add_to_cart"))
    # Those of the last day that are late have not arrived.
    assert len(orders) - 5 <= len(purchases) <= len(orders)
    for order_id, event in purchases.items():
        assert str(event["customer_id"]) == orders[order_id]["customer_id"]
        assert event["properties"]["order"]["value"] == pytest.approx(float(orders[order_id]["total"]))
        assert moment(event["occurred_at"]) == moment(orders[order_id]["ordered_at"])


def test_events_name_known_customers_and_products(shop):
    customers = {int(customer["customer_id"]) for customer in read(shop, "customers")}
    products = {product["product_id"] for product in read(shop, "products")}
    signed_up = {int(c["customer_id"]): moment(c["signed_up_at"]) for c in read(shop, "customers")}
    for event in read(shop, "web_events"):
        if event["customer_id"] and event["type"] not in ("checkout", "purchase"):
            assert signed_up[event["customer_id"]] < moment(event["occurred_at"])
        assert event["customer_id"] in customers | {None}
        assert event["product_id"] in products | {None}
    assert {int(item["product_id"]) for item in read(shop, "order_items")} <= products


def test_trade_is_skewed(shop):
    """Few customers and products make most of the trade, and baskets have a long tail."""
    orders = last_versions(shop).values()
    by_customer = Counter(order["customer_id"] for order in orders).most_common()
    busiest = sum(count for _, count in by_customer[: len(read(shop, "customers")) // 10])
    assert busiest > len(orders) / 3
    baskets = Counter(int(order["items_count"]) for order in orders)
    assert baskets[1] > baskets[2] > baskets[4]
    assert max(baskets) >= 10


def test_trade_has_its_hours_and_weekdays(shop):
    placed = [moment(order["ordered_at"]) for order in last_versions(shop).values()]
    hours = Counter(at.hour for at in placed)
    assert hours[19] + hours[20] > 5 * (hours[3] + hours[4])
    weekdays = Counter(at.weekday() for at in placed)
    assert weekdays[5] > weekdays[1] and weekdays[5] > weekdays[2]


def test_december_is_busier_than_february(tmp_path):
    def orders(start: date) -> int:
        out = tmp_path / start.isoformat()
        return generate_shop(ShopPlan(seed=3, days=10, scale=0.1, start=start), out).rows["order_items"]

    assert orders(date(2026, 12, 5)) > 1.2 * orders(date(2026, 2, 5))


def test_scale_is_linear(tmp_path):
    def rows(scale: float) -> dict[str, int]:
        return generate_shop(ShopPlan(seed=5, days=6, scale=scale), tmp_path / str(scale)).rows

    small, large = rows(0.2), rows(1.0)
    for table in ("customers", "products", "order_items", "web_events"):
        assert large[table] == pytest.approx(5 * small[table], rel=0.12)


def test_scale_1_is_the_promised_size(tmp_path):
    rows = generate_shop(ShopPlan(seed=7, days=10), tmp_path).rows
    assert rows["products"] == 200
    assert 1_500 < rows["customers"] < 2_000
    assert 1_600 < rows["web_events"] / 10 < 2_600


def test_a_tiny_shop_still_has_whole_files(tmp_path):
    generated = generate_shop(ShopPlan(seed=1, days=4, scale=0.001), tmp_path)
    assert generated.rows["customers"] >= 1
    assert len(generated.files) == 4 * 5 + 1
    assert read(tmp_path, "payments") is not None


def test_texts_are_awkward_enough_to_break_a_naive_reader(tmp_path):
    generate_shop(ShopPlan(seed=7, days=2), tmp_path)
    names = "".join(customer["full_name"] for customer in read(tmp_path, "customers"))
    for awkward in ('"', ",", "\n", "'", "ü", "🌸", "佐"):
        assert awkward in names
    described = "".join(product["attributes"]["description"] for product in read(tmp_path, "products"))
    for awkward in ('"', "\n", "\\", "🎁"):
        assert awkward in described


def test_prices_change_from_day_to_day(tmp_path):
    prices = []
    for days in (1, 60):
        generate_shop(ShopPlan(seed=7, days=days, scale=0.2), tmp_path)
        prices.append([product["price"] for product in read(tmp_path, "products")])
    assert sum(before != after for before, after in zip(*prices, strict=True)) > 20
