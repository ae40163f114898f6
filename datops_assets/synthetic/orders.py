"""What is bought: the orders of one day with their items, payments and whole later history.

An order's history (paid, shipped, delivered, refunded) is drawn with the order. A day's file
then holds the orders that changed on that day, each as it was at the end of it, so it is made
from the last few days' orders and never from a state carried along.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from datops_assets.synthetic import words
from datops_assets.synthetic.cells import Frame, epoch_s
from datops_assets.synthetic.customers import Customers
from datops_assets.synthetic.draws import Draws, Ints, cumulative, numbered
from datops_assets.synthetic.products import Products
from datops_assets.synthetic.seasons import HOURS, Counts
from datops_assets.synthetic.tables import ORDER_ITEMS, ORDERS, PAYMENTS

# An order's last event is at most 7 days and 2.5 hours after it, and a payment may arrive a
# day late: so many days after its own an order can still appear in a file.
OPEN_DAYS = 9

_PER_DAY = 155_000  # thousandths
_DAY_S = 86_400
_NEVER = np.int64(-1)

STATUSES = ("placed", "paid", "shipped", "delivered", "refunded", "cancelled")
_PLACED, _PAID, _SHIPPED, _DELIVERED, _REFUNDED, _CANCELLED = range(6)
_PAYMENT_STATUSES = ("captured", "failed", "refunded")
_CAPTURED, _FAILED, _PAID_BACK = range(3)

# Per mille of orders: never paid; paid at the second try; paid and sent back.
_UNPAID, _SECOND_TRY, _SENT_BACK = 30, 35, 40
_LATE_PAYMENTS, _TWICE_PAYMENTS = 0.02, 0.005

_LINES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 20, 35)
_LINE_WEIGHTS = cumulative((480, 240, 120, 65, 38, 22, 13, 8, 6, 4, 3, 1))
_QUANTITIES = np.array((1, 2, 3, 4, 5, 6, 10, 24), dtype=np.int64)
_QUANTITY_WEIGHTS = cumulative((780, 140, 45, 20, 8, 4, 2, 1))
_METHODS = cumulative([weight for _, weight in words.PAYMENT_METHODS])


@dataclass(frozen=True)
class Items:
    """Order lines, those of one order together and in order; `order` is a position, not an id."""

    order: Ints
    line_no: Ints
    product_id: Ints
    quantity: Ints
    unit_price: Ints

    @property
    def line_total(self) -> Ints:
        """Cents."""
        return self.quantity * self.unit_price


@dataclass(frozen=True)
class DayOfOrders:
    """The orders placed on one day, in the order of their ids, with all that will happen to them.

    reached    one row per order, one column per status: when it was reached, -1 for never
    tries      when the first and the second payment were tried, -1 for never
    unpaid     whether no try succeeded
    """

    order_id: Ints
    customer_id: Ints
    method: Ints
    items: Items
    total: Ints
    reached: Ints
    tries: Ints
    unpaid: NDArray[np.bool_]


class Orders:
    """The shop's orders, numbered from 1 in the order in which they were placed."""

    def __init__(
        self, seed: int, start: date, thousandths: int, customers: Customers, products: Products
    ) -> None:
        self._seed = seed
        self._start_s = epoch_s(start)
        self._customers, self._products = customers, products
        self._counts = Counts(seed, start, "orders", _PER_DAY * thousandths // 1000)
        self._days: dict[int, DayOfOrders] = {}

    def placed_on(self, day: int) -> DayOfOrders:
        """The orders of a day. Those of the last days stay in memory."""
        if day not in self._days:
            for old in [known for known in self._days if abs(known - day) > OPEN_DAYS + 4]:
                del self._days[old]
            self._days[day] = self._drawn(day)
        return self._days[day]

    def delta(self, day: int) -> Frame:
        """The orders that changed on a day, each once, as they were at its end."""
        begin, end = self._start_s + day * _DAY_S, self._start_s + (day + 1) * _DAY_S
        parts: list[dict[str, Ints]] = []
        for orders in self._recent(day):
            known = np.where(orders.reached < end, orders.reached, _NEVER)
            updated = known.max(axis=1, initial=-1)
            parts.append(
                _rows(
                    updated >= begin,
                    order_id=orders.order_id,
                    customer_id=orders.customer_id,
                    status=known.argmax(axis=1) if len(known) else known[:, 0],
                    ordered_at=orders.reached[:, _PLACED],
                    updated_at=updated,
                    items_count=np.bincount(orders.items.order, minlength=len(orders.order_id)),
                    total=orders.total,
                )
            )
        columns: dict[str, Ints] = _joined(parts)
        order = np.lexsort((columns["order_id"], columns["updated_at"]))
        columns = {name: values[order] for name, values in columns.items()}
        status = [STATUSES[status] for status in columns["status"].tolist()]
        return Frame(ORDERS, {**columns, "status": status, "currency": ["EUR"] * len(status)})

    def items(self, day: int) -> Frame:
        """The items of the orders placed on a day."""
        orders = self.placed_on(day)
        items = orders.items
        columns = {
            "order_id": orders.order_id[items.order],
            "line_no": items.line_no,
            "product_id": items.product_id,
            "quantity": items.quantity,
            "unit_price": items.unit_price,
            "line_total": items.line_total,
        }
        return Frame(ORDER_ITEMS, columns)

    def payments(self, day: int) -> Frame:
        """The payments that arrive on a day: most were made on it, a few the day before.

        Of those from the day before, some had arrived on time already and come a second time.
        """
        begin = self._start_s + day * _DAY_S
        parts: list[dict[str, Ints]] = []
        for orders in self._recent(day):
            made = _payments(orders)
            age = (begin + _DAY_S - 1 - made["paid_at"]) // _DAY_S
            draws = Draws(self._seed, "payments")
            late = draws.happens("late", made["payment_id"], _LATE_PAYMENTS)
            twice = draws.happens("twice", made["payment_id"], _TWICE_PAYMENTS)
            arrives = ((age == 0) & ~late) | ((age == 1) & (late | twice))
            parts.append({name: values[arrives] for name, values in made.items()})
        columns: dict[str, Ints] = _joined(parts)
        order = np.lexsort((columns["payment_id"], columns["paid_at"]))
        columns = {name: values[order] for name, values in columns.items()}
        methods = [words.PAYMENT_METHODS[method][0] for method in columns["method"].tolist()]
        statuses = [_PAYMENT_STATUSES[status] for status in columns["status"].tolist()]
        return Frame(PAYMENTS, {**columns, "method": methods, "status": statuses})

    def _recent(self, day: int) -> list[DayOfOrders]:
        return [self.placed_on(then) for then in range(max(0, day - OPEN_DAYS), day + 1)]

    def _drawn(self, day: int) -> DayOfOrders:
        draws = Draws(self._seed, "orders", day)
        drawn = numbered(self._counts.on(day))
        customer_id = draws.pick("customer", drawn, self._customers.cumulative_weights(day)) + 1
        placed = self._placed_s(day, draws, customer_id)
        by_time = np.argsort(placed, kind="stable")
        placed, customer_id = placed[by_time], customer_id[by_time]
        items = self._items(day, draws, drawn)
        total = np.zeros(len(drawn), dtype=np.int64)
        np.add.at(total, items.order, items.line_total)
        reached, tries, unpaid = _history(draws, placed)
        return DayOfOrders(
            order_id=self._counts.until(day - 1) + drawn + 1,
            customer_id=customer_id,
            method=draws.pick("method", drawn, _METHODS),
            items=items,
            total=total,
            reached=reached,
            tries=tries,
            unpaid=unpaid,
        )

    def _placed_s(self, day: int, draws: Draws, customer_id: Ints) -> Ints:
        """When each order is placed; for a customer of the same day, after the sign-up."""
        index = numbered(len(customer_id))
        begin = self._start_s + day * _DAY_S
        second = draws.pick("hour", index, HOURS) * 3600 + draws.below("second", index, 3600)
        placed = begin + second
        new = np.flatnonzero(customer_id > self._customers.until(day - 1))
        if day and new.size:
            signed_up = self._customers.signed_up_s(customer_id[new])
            rest = begin + _DAY_S - signed_up
            placed[new] = signed_up + draws.below("first", new.astype(np.int64), rest)
        return placed

    def _items(self, day: int, draws: Draws, orders: Ints) -> Items:
        lines = np.array(_LINES, dtype=np.int64)[draws.pick("lines", orders, _LINE_WEIGHTS)]
        order = np.repeat(orders, lines)
        index = numbered(len(order))
        first = np.repeat(np.cumsum(lines) - lines, lines)
        product = draws.pick("product", index, self._products.cumulative_weights(day))
        return Items(
            order=order,
            line_no=index - first + 1,
            product_id=product + 1,
            quantity=_QUANTITIES[draws.pick("quantity", index, _QUANTITY_WEIGHTS)],
            unit_price=self._products.prices(day)[product],
        )


def _history(draws: Draws, placed: Ints) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """Draw when each status is reached, when payments are tried, and whether all of them fail."""
    index = numbered(len(placed))
    fate = draws.below("fate", index, 1000)
    unpaid = fate < _UNPAID
    again = (fate < _UNPAID // 2) | ((fate >= _UNPAID) & (fate < _UNPAID + _SECOND_TRY))
    sent_back = fate >= 1000 - _SENT_BACK
    first = placed + draws.between("paid", index, 5, 900)
    second = np.where(again, first + draws.between("again", index, 300, 7_200), _NEVER)
    last_try = np.maximum(first, second)
    shipped = last_try + draws.between("shipped", index, 6 * 3600, 48 * 3600)
    delivered = shipped + draws.between("delivered", index, 20 * 3600, 72 * 3600)
    refunded = delivered + draws.between("refunded", index, 12 * 3600, 48 * 3600)
    cancelled = last_try + draws.between("cancelled", index, 3600, 6 * 3600)
    reached = np.full((len(placed), len(STATUSES)), _NEVER)
    reached[:, _PLACED] = placed
    reached[:, _PAID] = np.where(unpaid, _NEVER, last_try)
    reached[:, _SHIPPED] = np.where(unpaid, _NEVER, shipped)
    reached[:, _DELIVERED] = np.where(unpaid, _NEVER, delivered)
    reached[:, _REFUNDED] = np.where(sent_back, refunded, _NEVER)
    reached[:, _CANCELLED] = np.where(unpaid, cancelled, _NEVER)
    return reached, np.stack([first, second], axis=1), unpaid


def _payments(orders: DayOfOrders) -> dict[str, Ints]:
    """List the payments of some orders: every try, and the money paid back."""
    second = orders.tries[:, 1] != _NEVER
    failed_first = orders.unpaid | second
    kinds = (
        (1, np.ones_like(second), orders.tries[:, 0], np.where(failed_first, _FAILED, _CAPTURED)),
        (2, second, orders.tries[:, 1], np.where(orders.unpaid, _FAILED, _CAPTURED)),
        (
            3,
            orders.reached[:, _REFUNDED] != _NEVER,
            orders.reached[:, _REFUNDED],
            np.full_like(orders.order_id, _PAID_BACK),
        ),
    )
    return _joined(
        [
            _rows(
                made,
                payment_id=orders.order_id * 10 + number,
                order_id=orders.order_id,
                method=orders.method,
                amount=orders.total,
                paid_at=paid_at,
                status=status,
            )
            for number, made, paid_at, status in kinds
        ]
    )


def _rows(chosen: NDArray[np.bool_], **columns: Ints) -> dict[str, Ints]:
    return {name: values[chosen] for name, values in columns.items()}


def _joined(parts: Sequence[dict[str, Ints]]) -> dict[str, Ints]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
