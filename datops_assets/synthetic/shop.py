"""The shop: all tables of one plan, and their records of any day."""

from __future__ import annotations

from datops_assets.synthetic.cells import Frame
from datops_assets.synthetic.customers import Customers
from datops_assets.synthetic.events import WebEvents
from datops_assets.synthetic.orders import Orders
from datops_assets.synthetic.plan import ShopPlan
from datops_assets.synthetic.products import Products
from datops_assets.synthetic.tables import Table


class Shop:
    """What a plan's files hold before any fault. Days count from 0 at the plan's start.

    promise  the records of a day depend on seed, scale, start and that day alone. Any order of
             days gives the same; going forward day by day is fast, because a day's orders are
             needed again on the days after. Memory is bounded by scale, not by days.
    """

    def __init__(self, plan: ShopPlan) -> None:
        seed, start, scale = plan.seed, plan.start, plan.thousandths
        customers = Customers(seed, start, scale)
        products = Products(seed, scale)
        orders = Orders(seed, start, scale, customers, products)
        events = WebEvents(seed, start, scale, customers, products, orders)
        self._frames = {
            "customers": customers.delta,
            "products": products.catalogue,
            "orders": orders.delta,
            "order_items": orders.items,
            "payments": orders.payments,
            "web_events": events.arrived,
        }

    def records(self, table: Table, day: int) -> Frame:
        """The records of a table that arrive on a day."""
        return self._frames[table.name](day)
