"""What visitors do: sessions on the shop's site, those that end in an order and those that don't."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from urllib.parse import quote

import numpy as np

from datops_assets.synthetic import words
from datops_assets.synthetic.cells import Frame, epoch_s, json_string, money
from datops_assets.synthetic.customers import Customers
from datops_assets.synthetic.draws import Draws, Ints, cumulative, numbered
from datops_assets.synthetic.orders import Orders
from datops_assets.synthetic.products import Products
from datops_assets.synthetic.seasons import HOURS, Counts
from datops_assets.synthetic.tables import WEB_EVENTS

_VISITS_PER_DAY = 330_000  # thousandths; sessions that do not end in an order
_DAY_MS = 86_400_000
_LATE, _TWICE = 0.01, 0.003

TYPES = ("page_view", "search", "product_view", "add_to_cart", "checkout", "purchase")
_PAGE, _SEARCH, _VIEW, _CART, _CHECKOUT, _PURCHASE = range(6)
# One for each type.
_PAGES = (
    "https://shop.example/",
    "https://shop.example/search?q=",
    "https://shop.example/p/",
    "https://shop.example/cart?add=",
    "https://shop.example/checkout",
    "https://shop.example/thank-you",
)
_LENGTHS = np.array((1, 2, 3, 4, 5, 7, 10, 18), dtype=np.int64)
_LENGTH_WEIGHTS = cumulative((300, 220, 160, 110, 80, 70, 40, 20))
_VIEWS = np.array((1, 2, 3, 4, 6, 11), dtype=np.int64)
_VIEW_WEIGHTS = cumulative((340, 290, 190, 100, 60, 20))
_TYPE_WEIGHTS = cumulative((12, 12, 64, 9, 3))
_REFERRERS = cumulative([weight for _, weight in words.REFERRERS])
_DEVICES = cumulative([weight for _, _, weight in words.DEVICES])


@dataclass(frozen=True)
class _Events:
    """Events of one day, in the order of their time; 0 stands for no customer, product, order."""

    number: Ints
    session: Ints
    at_ms: Ints
    type: Ints
    customer_id: Ints
    product_id: Ints
    order_id: Ints
    value: Ints


class WebEvents:
    """The shop's web events."""

    def __init__(
        self,
        seed: int,
        start: date,
        thousandths: int,
        customers: Customers,
        products: Products,
        orders: Orders,
    ) -> None:
        self._seed = seed
        self._start_ms = epoch_s(start) * 1000
        self._customers, self._products, self._orders = customers, products, orders
        self._counts = Counts(seed, start, "visits", _VISITS_PER_DAY * thousandths // 1000)
        self._days: dict[int, _Events] = {}

    def arrived(self, day: int) -> Frame:
        """The events that arrive on a day: most happened on it, a few the day before.

        Of those from the day before, some had arrived on time already and come a second time.
        """
        parts = []
        for then in (day - 1, day) if day else (day,):
            events = self._happened(then)
            draws = Draws(self._seed, "arrival", then)
            late = draws.happens("late", events.number, _LATE)
            twice = draws.happens("twice", events.number, _TWICE)
            chosen = np.flatnonzero(~late if then == day else late | twice)
            parts.append(self._written(then, events, chosen))
        names = [column.name for column in WEB_EVENTS.columns]
        return Frame(WEB_EVENTS, {name: _joined([part[name] for part in parts]) for name in names})

    def _happened(self, day: int) -> _Events:
        if day not in self._days:
            for old in [known for known in self._days if known != day - 1]:
                del self._days[old]
            self._days[day] = _by_time(self._buying(day), self._browsing(day))
        return self._days[day]

    def _buying(self, day: int) -> _Events:
        """The sessions that end in the day's orders: one each."""
        draws = Draws(self._seed, "buying", day)
        orders = self._orders.placed_on(day)
        count = len(orders.order_id)
        views = _VIEWS[draws.pick("views", numbered(count), _VIEW_WEIGHTS)]
        order, step = _steps(views + 4)
        index = numbered(len(order))
        left = (views + 3)[order] - step
        kind = np.full(len(order), _VIEW)
        kind[step == 0] = _PAGE
        kind[left == 2], kind[left == 1], kind[left == 0] = _CART, _CHECKOUT, _PURCHASE
        begin = self._start_ms + day * _DAY_MS
        pace = 8_000 + draws.below("pace", order, 50_000)
        bought_ms = orders.reached[order, 0] * 1000
        jitter = draws.below("jitter", index, 5_000)
        at = np.where(left == 0, bought_ms, bought_ms - left * pace - jitter)
        known = (left < 2) | draws.happens("known", order, 0.6)
        known &= (orders.customer_id <= self._customers.until(day - 1))[order] | (left < 2)
        first_line = np.searchsorted(orders.items.order, numbered(count), side="left")
        bought = orders.items.product_id[first_line][order]
        seen = draws.pick("seen", index, self._products.cumulative_weights(day)) + 1
        product = np.where((kind == _CART) | draws.happens("same", index, 0.4), bought, seen)
        return _Events(
            number=index,
            session=order,
            # A session that began before midnight is counted from midnight on.
            at_ms=np.maximum(at, begin),
            type=kind,
            customer_id=np.where(known, orders.customer_id[order], 0),
            product_id=np.where((kind == _VIEW) | (kind == _CART), product, 0),
            order_id=np.where(kind == _PURCHASE, orders.order_id[order], 0),
            value=orders.total[order],
        )

    def _browsing(self, day: int) -> _Events:
        """The sessions that end in no order; half of the visitors are not known."""
        draws = Draws(self._seed, "browsing", day)
        visits = numbered(self._counts.on(day))
        lengths = _LENGTHS[draws.pick("length", visits, _LENGTH_WEIGHTS)]
        visit, step = _steps(lengths)
        index = numbered(len(visit))
        kind = draws.pick("type", index, _TYPE_WEIGHTS)
        kind[(step == 0) & (kind > _VIEW)] = _PAGE
        second = draws.pick("hour", visits, HOURS) * 3600 + draws.below("second", visits, 3600)
        pace = 5_000 + draws.below("pace", visits, 60_000)
        at = second[visit] * 1000 + step * pace[visit] + draws.below("jitter", index, 5_000)
        # Who was there the day before: nobody browses under a name before signing up.
        weights = self._customers.cumulative_weights(day - 1)
        customer = draws.pick("customer", visits, weights) + 1
        known = draws.happens("known", visits, 0.5)
        product = draws.pick("product", index, self._products.cumulative_weights(day)) + 1
        return _Events(
            number=index,
            session=visit,
            at_ms=self._start_ms + day * _DAY_MS + np.minimum(at, _DAY_MS - 1),
            type=kind,
            customer_id=np.where(known, customer, 0)[visit],
            product_id=np.where((kind == _VIEW) | (kind == _CART), product, 0),
            order_id=np.zeros_like(visit),
            value=np.zeros_like(visit),
        )

    def _written(self, day: int, events: _Events, chosen: Ints) -> dict[str, list[str] | Ints]:
        draws = Draws(self._seed, "event", day)
        session = events.session[chosen]
        product_id = events.product_id[chosen]
        columns: dict[str, list[str] | Ints] = {
            "event_id": _uuids(draws, events.number[chosen]),
            "occurred_at": events.at_ms[chosen],
            "session_id": [f"s-{bits:016x}" for bits in draws.bits("session", session).tolist()],
            "customer_id": events.customer_id[chosen],
            "type": [TYPES[kind] for kind in events.type[chosen].tolist()],
            "product_id": product_id,
        }
        searched = draws.below("search", events.number[chosen], len(words.SEARCHES)).tolist()
        columns["url"] = [
            _url(kind, self._products.sku(product) if product else "", words.SEARCHES[search])
            for kind, product, search in zip(
                events.type[chosen].tolist(), product_id.tolist(), searched, strict=True
            )
        ]
        visitor = _visitors(draws, session)
        columns["properties"] = [
            _properties(*drawn)
            for drawn in zip(
                visitor,
                events.type[chosen].tolist(),
                [words.SEARCHES[search] for search in searched],
                events.order_id[chosen].tolist(),
                events.value[chosen].tolist(),
                strict=True,
            )
        ]
        return columns


def _steps(lengths: Ints) -> tuple[Ints, Ints]:
    """Number the events of sessions of the given lengths: which session, which step of it."""
    session = np.repeat(numbered(len(lengths)), lengths)
    return session, numbered(len(session)) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def _by_time(buying: _Events, browsing: _Events) -> _Events:
    """Put both kinds of session together, in the order of time."""
    order = np.argsort(np.concatenate([buying.at_ms, browsing.at_ms]), kind="stable")
    both = {
        name: np.concatenate([getattr(buying, name), getattr(browsing, name)])[order]
        for name in ("at_ms", "type", "customer_id", "product_id", "order_id", "value")
    }
    after = int(buying.session.max(initial=-1)) + 1
    session = np.concatenate([buying.session, browsing.session + after])[order]
    return _Events(number=numbered(len(order)), session=session, **both)


def _joined(parts: list[list[str] | Ints]) -> list[str] | Ints:
    if isinstance(parts[0], list):
        return [value for part in parts for value in part]
    return np.concatenate(parts)


def _uuids(draws: Draws, number: Ints) -> list[str]:
    """Write 122 random bits as a UUID of version 4."""
    written = []
    for high, low in zip(
        draws.bits("uuid_high", number).tolist(), draws.bits("uuid_low", number).tolist(), strict=True
    ):
        a, b = f"{high & ~0xF000 | 0x4000:016x}", f"{low & ~(0xC << 60) | 0x8 << 60:016x}"
        written.append(f"{a[:8]}-{a[8:12]}-{a[12:]}-{b[:4]}-{b[4:]}")
    return written


def _url(kind: int, sku: str, search: str) -> str:
    page = _PAGES[kind]
    if kind == _SEARCH:
        return page + quote(search)
    return page + sku if kind in (_VIEW, _CART) else page


def _visitors(draws: Draws, session: Ints) -> list[str]:
    """Write what is the same in all events of a session: device, where from, which campaign."""
    device = draws.pick("device", session, _DEVICES).tolist()
    referrer = draws.pick("referrer", session, _REFERRERS).tolist()
    campaign = draws.below("campaign", session, 12 * len(words.CAMPAIGNS)).tolist()
    written = []
    for on, came_from, by in zip(device, referrer, campaign, strict=True):
        kind, system, _ = words.DEVICES[on]
        text = f'"device":{{"type":"{kind}","os":"{system}"}},"referrer":'
        text += json_string(words.REFERRERS[came_from][0]) if came_from else "null"
        if by < len(words.CAMPAIGNS):
            text += f',"utm":{{"campaign":{json_string(words.CAMPAIGNS[by])}}}'
        written.append(text)
    return written


def _properties(visitor: str, kind: int, search: str, order_id: int, value: int) -> str:
    if kind == _SEARCH:
        return f'{{{visitor},"search":{{"query":{json_string(search)},"page":1}}}}'
    if order_id:
        return f'{{{visitor},"order":{{"id":{order_id},"value":{money(value)}}}}}'
    return f"{{{visitor}}}"
