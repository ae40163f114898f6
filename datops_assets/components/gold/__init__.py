"""Gold: a dbt project as assets. `Gold` is what a defs.yaml names; the rest is how it is done."""

from datops_assets.components.gold.component import Gold

__all__ = ["Gold"]
