"""What is sold: a fixed assortment whose prices and availability change with time."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from datops_assets.synthetic import words
from datops_assets.synthetic.cells import Frame, Values
from datops_assets.synthetic.customers import skewed
from datops_assets.synthetic.draws import Draws, Ints, numbered
from datops_assets.synthetic.tables import PRODUCTS

_COUNT = 200
_OFF_SALE_DAYS = 45
_OFF_SALE_PER_MILLE = 40
_CENT_ENDINGS = np.array([99, 99, 95, 90, 50, 0, 49], dtype=np.int64)


class Products:
    """The shop's products, numbered from 1."""

    def __init__(self, seed: int, thousandths: int) -> None:
        self._draws = Draws(seed, "products")
        self.ids: Ints = numbered(max(1, _COUNT * thousandths // 1000)) + 1
        draws = self._draws
        self._category = draws.below("category", self.ids, len(words.GOODS))
        lowest = np.array([low for _, low, _, _ in words.GOODS], dtype=np.int64)[self._category]
        highest = np.array([high for _, _, high, _ in words.GOODS], dtype=np.int64)[self._category]
        # The square of a uniform share: many cheap things, few dear ones.
        share = draws.below("price", self.ids, 1 << 16)
        self._euros = lowest + ((highest - lowest) * share * share >> 32)
        self._weights = np.diff(skewed(draws.below("weight", self.ids, 1 << 20)), prepend=0)

    def sku(self, product_id: int) -> str:
        """The stock-keeping unit of a product."""
        return f"{words.GOODS[int(self._category[product_id - 1])][0][:3].upper()}-{product_id:05d}"

    def cumulative_weights(self, day: int) -> Ints:
        """How well each product sells on a day, summed up; 0 for those not on sale."""
        weights = np.where(self.on_sale(day), self._weights, 0)
        return np.cumsum(weights if weights.any() else self._weights)

    def on_sale(self, day: int) -> NDArray[np.bool_]:
        """Which products are active on a day."""
        phase = self._draws.below("off_sale_phase", self.ids, _OFF_SALE_DAYS)
        drawn = self._draws.below("off_sale", self.ids, 1000, (day + phase) // _OFF_SALE_DAYS)
        return drawn >= _OFF_SALE_PER_MILLE

    def prices(self, day: int) -> Ints:
        """What each product costs on a day, in cents. Each price lasts 25 to 75 days."""
        draws = self._draws
        period = 25 + draws.below("price_period", self.ids, 51)
        phase = draws.below("price_phase", self.ids, 75)
        revision = (day + phase) // period
        euros = self._euros * (900 + draws.below("price_change", self.ids, 201, revision)) // 1000
        return euros * 100 + _CENT_ENDINGS[draws.below("cents", self.ids, 7, revision)]

    def catalogue(self, day: int) -> Frame:
        """All products as they are on a day."""
        positions = self.ids.tolist()
        columns: dict[str, Values] = {
            "product_id": self.ids,
            "sku": [self.sku(product_id) for product_id in positions],
            "name": self._names(),
            "category": [words.GOODS[category][0] for category in self._category.tolist()],
            "price": self.prices(day),
            "currency": ["EUR"] * len(positions),
            "active": self.on_sale(day),
            "attributes": self._attributes(),
        }
        return Frame(PRODUCTS, columns)

    def _names(self) -> list[str]:
        maker = self._draws.below("maker", self.ids, len(words.MAKERS)).tolist()
        things = self._draws.bits("thing", self.ids).tolist()
        names = []
        for category, made_by, thing in zip(self._category.tolist(), maker, things, strict=True):
            goods = words.GOODS[category][3]
            names.append(f"{words.MAKERS[made_by]} {goods[thing % len(goods)]}")
        return names

    def _attributes(self) -> list[str]:
        draws, ids, all_tags = self._draws, self.ids, 1 << len(words.TAGS)
        described = zip(
            draws.below("description", ids, len(words.DESCRIPTIONS)).tolist(),
            draws.below("colour", ids, len(words.COLOURS)).tolist(),
            draws.between("width", ids, 10, 900).tolist(),
            draws.between("height", ids, 10, 900).tolist(),
            # Each tag stands on a quarter of the products.
            (draws.below("tags", ids, all_tags) & draws.below("fewer", ids, all_tags)).tolist(),
            strict=True,
        )
        return [
            json.dumps(
                {
                    "description": words.DESCRIPTIONS[description],
                    "colour": words.COLOURS[colour],
                    "dimensions": {"width_mm": width, "height_mm": height},
                    "tags": [tag for bit, tag in enumerate(words.TAGS) if tags >> bit & 1],
                },
                ensure_ascii=False,
                separators=(",", ":"),
            )
            for description, colour, width, height, tags in described
        ]
