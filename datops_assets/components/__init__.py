"""Component types: YAML becomes assets, checks, sensors, schedules and jobs.

The names are looked up when they are asked for: a command that only needs the catalogue
(`datops load list`) must not pay 1.3 s for importing Dagster.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datops_assets.components.alert_route import AlertRoute
    from datops_assets.components.backups.component import DatabaseBackup
    from datops_assets.components.databases.component import TeamDatabase
    from datops_assets.components.databases.watching import DatabaseWatch
    from datops_assets.components.export import Export
    from datops_assets.components.gold import Gold
    from datops_assets.components.pipeline import Pipeline
    from datops_assets.components.shop_generator import ShopGenerator
    from datops_assets.components.streams.component import ChangeStream

__all__ = [
    "AlertRoute",
    "ChangeStream",
    "DatabaseBackup",
    "DatabaseWatch",
    "Export",
    "Gold",
    "Pipeline",
    "ShopGenerator",
    "TeamDatabase",
]

_HOME = {
    "AlertRoute": "alert_route",
    "DatabaseWatch": "databases.watching",
    "Export": "export",
    "ChangeStream": "streams.component",
    "DatabaseBackup": "backups.component",
    "Gold": "gold",
    "Pipeline": "pipeline",
    "ShopGenerator": "shop_generator",
    "TeamDatabase": "databases.component",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
