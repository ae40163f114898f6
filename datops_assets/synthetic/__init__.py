"""Synthetic data: a shop whose every byte follows from a seed, with labelled faults on request.

Other domains know nothing of it; it reads no environment and writes only below the folder
that it is given.
"""

from datops_assets.synthetic.declaration import DEMO_FAULTS, Fault, read_faults
from datops_assets.synthetic.generate import generate_shop, generate_shop_day
from datops_assets.synthetic.plan import Generated, ShopPlan

__all__ = [
    "DEMO_FAULTS",
    "Fault",
    "Generated",
    "ShopPlan",
    "generate_shop",
    "generate_shop_day",
    "read_faults",
]
