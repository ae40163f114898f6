"""What a build leaves in gold, against results worked out from silver without dbt."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal

from datops_assets_tests.conftest import TestWarehouse
from datops_assets_tests.gold.conftest import Build, Built

PAID = {"paid", "shipped", "delivered"}


def revenue_by_day(shop: TestWarehouse) -> dict[tuple[str, str], Decimal]:
    return {(day, currency): revenue for day, currency, revenue in shop.fetch(
        "select order_date::text, currency, revenue from gold.daily_revenue"
    )}  # fmt: skip


def expected_revenue(shop: TestWarehouse) -> dict[tuple[str, str], Decimal]:
    revenue: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for ordered_at, currency, status, total in shop.fetch(
        "select ordered_at, currency, status, total from silver.shop_orders"
    ):
        revenue[ordered_at.date().isoformat(), currency] += total if status in PAID else 0
    return dict(revenue)


def test_everything_is_built_and_every_test_passes(built: Built) -> None:
    """One step makes five marts, a snapshot and the results of all tests."""
    assert built.outcome.success
    made = built.fetch("select table_name from information_schema.tables where table_schema = 'gold'")
    marts = {"conversion_funnel", "customers", "daily_payments", "daily_revenue", "product_performance"}
    assert {name for (name,) in made} == {*marts, "product_prices"}
    checks = built.outcome.get_asset_check_evaluations()
    assert len(checks) >= 20 and all(check.passed for check in checks)


def test_a_day_is_the_day_in_utc_and_currencies_are_kept_apart(built: Built) -> None:
    """23:30 belongs to the day that ends; dollars are not added to euros."""
    rows = built.fetch(
        "select order_date::text, currency, orders, paid_orders, paid_items, revenue "
        "from gold.daily_revenue order by 1, 2"
    )
    assert rows == [
        ("2026-02-01", "EUR", 2, 2, 3, Decimal("46.00")),
        ("2026-02-02", "EUR", 2, 1, 3, Decimal("46.00")),
        ("2026-02-03", "USD", 1, 1, 1, Decimal("8.00")),
    ]


def test_a_customer_without_a_paid_order_stays(built: Built) -> None:
    """Lifetime value counts paid orders only, and is 0 for who has none."""
    rows = built.fetch(
        "select customer_id, paid_orders, lifetime_value, average_order_value, first_order_at::text "
        "from gold.customers order by 1"
    )
    assert rows == [
        (1, 2, Decimal("46.00"), Decimal("23.00"), "2026-02-01 09:00:00+00"),
        (2, 2, Decimal("54.00"), Decimal("27.00"), "2026-02-02 12:00:00+00"),
        (3, 0, Decimal("0"), None, None),
    ]


def test_products_are_ranked_by_what_was_paid_for(built: Built) -> None:
    """The cancelled pan does not count, the pen was never sold."""
    rows = built.fetch(
        "select sku, units_sold, revenue, rank_in_category from gold.product_performance order by 1"
    )
    assert rows == [
        ("MUG-1", 5, Decimal("40.00"), 2),
        ("PAN-1", 2, Decimal("60.00"), 1),
        ("PEN-1", 0, Decimal("0"), 1),
    ]


def test_money_is_counted_on_the_day_it_moved(built: Built) -> None:
    """The refund of order 101 two days later, and one try that failed."""
    rows = built.fetch(
        "select payment_date::text, method, payments, failed_payments, captured, refunded "
        "from gold.daily_payments order by 1, 2"
    )
    nothing = Decimal("0")
    assert rows == [
        ("2026-02-01", "card", 2, 0, Decimal("46.00"), nothing),
        ("2026-02-02", "card", 1, 0, Decimal("46.00"), nothing),
        ("2026-02-02", "paypal", 1, 1, nothing, nothing),
        ("2026-02-03", "card", 2, 0, Decimal("8.00"), Decimal("30.00")),
    ]


def test_a_session_counts_once_on_the_day_it_began(built: Built) -> None:
    """Session s2 crosses midnight."""
    rows = built.fetch(
        "select session_date::text, sessions, product_view_sessions, purchase_sessions "
        "from gold.conversion_funnel"
    )
    assert rows == [("2026-02-01", 3, 2, 1)]


def test_a_day_that_changed_is_computed_again_however_old(shop: TestWarehouse, build: Build) -> None:
    """Orders that came late, were corrected, were undone; the days between are not rewritten."""
    shop.conn.execute("""
        insert into silver.shop_orders values
            (90, 3, 'paid', '2026-01-15 09:00Z', '2026-01-15 09:00Z', 'EUR', 1, 5.00, 9, 1),
            (91, 3, 'paid', '2026-02-01 10:00Z', '2026-02-01 10:00Z', 'EUR', 1, 7.00, 9, 2);
        update silver.shop_orders set status = 'refunded' where order_id = 100;
        delete from silver.shop_orders where order_id = 104""")
    untouched = shop.fetch("select xmin, ctid from gold.daily_revenue where order_date = '2026-02-02'")
    assert build().success
    assert revenue_by_day(shop) == expected_revenue(shop) == {
        ("2026-01-15", "EUR"): Decimal("5.00"),
        ("2026-02-01", "EUR"): Decimal("37.00"),
        ("2026-02-02", "EUR"): Decimal("46.00"),
    }  # fmt: skip
    assert (
        shop.fetch("select xmin, ctid from gold.daily_revenue where order_date = '2026-02-02'") == untouched
    )


def test_the_snapshot_keeps_every_price(shop: TestWarehouse, build: Build) -> None:
    """A new price closes the old version; a product that left closes too; nothing is deleted."""
    shop.conn.execute("update silver.shop_products set price = 9.00, _load_id = 9 where product_id = 10")
    shop.conn.execute("delete from silver.shop_products where product_id = 12")
    assert build().success
    rows = shop.fetch(
        "select product_id, price, valid_to is null, pg_typeof(valid_from)::text "
        "from gold.product_prices order by 1, 2"
    )
    assert [row[:3] for row in rows] == [
        (10, Decimal("8.00"), False),
        (10, Decimal("9.00"), True),
        (11, Decimal("30.00"), True),
        (12, Decimal("2.00"), False),
    ]
    assert {row[3] for row in rows} == {"timestamp with time zone"}


def test_a_full_refresh_starts_over_but_keeps_the_price_history(shop: TestWarehouse, build: Build) -> None:
    """Chosen in the run's configuration; the snapshot cannot be made again from silver."""
    shop.conn.execute("update gold.daily_revenue set revenue = revenue + 1")
    shop.conn.execute("update silver.shop_products set price = 9.00 where product_id = 10")
    outcome = build(run_config={"ops": {"gold": {"config": {"full_refresh": True}}}})
    assert outcome.success
    assert revenue_by_day(shop) == expected_revenue(shop)
    assert shop.fetch("select count(*) from gold.product_prices where product_id = 10") == [(2,)]


def test_readers_may_read_what_dbt_makes(built: Built) -> None:
    """dbt makes each table anew and renames it; BI tools log in with the role datops_reader."""
    rights = built.fetch(
        "select table_name, has_table_privilege('datops_reader', 'gold.' || table_name, 'select') "
        "from information_schema.tables where table_schema = 'gold'"
    )
    assert len(rights) == 6 and all(allowed for _, allowed in rights)
