"""How a dbt node is named in the graph. Imports dagster_dbt: only for what runs, never for loading."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator


class GoldTranslator(DagsterDbtTranslator):
    """dagster-dbt's translation, except that what dbt makes is called gold/<model>."""

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
        """Name sources by their `meta.dagster.asset_key`, the rest by where it lands."""
        if dbt_resource_props["resource_type"] == "source":
            return super().get_asset_key(dbt_resource_props)
        return dg.AssetKey(["gold", dbt_resource_props["name"]])
