"""The component `ShopGenerator`: synthetic shop files as an asset."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from datops_assets.components.failures import failing_as_dagster
from datops_assets.config.settings import read_settings


class ShopGenerator(dg.Component, dg.Model, dg.Resolvable):
    """A shop's files, made from a seed: the same seed gives the same bytes."""

    name: str = Field("shop", description="Last part of the asset's key: synthetic/<name>.")
    seed: int = Field(7, description="Everything follows from it.")
    days: int = Field(30, ge=1, description="Days of data.")
    scale: float = Field(1.0, gt=0, description="1 is about 150 orders a day.")
    start: str = Field("2026-01-01", description="First day.")
    faults: str | None = Field(
        None, description="A YAML file of faults; `demo` is the one that ships with datops."
    )
    out: str = Field(".datops/landing/shop", description="Folder of the files, relative to the project root.")
    team: str = Field(description="Who answers for it.")

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """One asset without dependants: what reads the files is a sensor's or a schedule's matter."""

        @dg.asset(
            key=dg.AssetKey(["synthetic", self.name]),
            group_name="synthetic",
            kinds={"python", "file"},
            owners=[f"team:{self.team}"],
            description=f"{self.days} days of shop files below {self.out}, seed {self.seed}.",
        )
        def generate() -> dg.MaterializeResult[Any]:
            with failing_as_dagster():
                return dg.MaterializeResult(metadata=self.generate())

        return dg.Definitions(assets=[generate])

    def generate(self) -> dict[str, Any]:
        """Write the files. Raises DeclarationError: the faults file is wrong."""
        from datops_assets.synthetic import ShopPlan, generate_shop

        settings = read_settings()
        plan = ShopPlan(
            seed=self.seed,
            days=self.days,
            scale=self.scale,
            start=date.fromisoformat(self.start),
            faults=self._faults(settings.project_root),
        )
        made = generate_shop(plan, settings.project_root / self.out)
        return {
            "files": len(made.files),
            "files_written": len(made.written),
            "rows": dict(made.rows),
            "labelled_faults": {table: dict(faults) for table, faults in made.labels.items()},
        }

    def _faults(self, root: Path) -> tuple[Any, ...]:
        from datops_assets.synthetic import DEMO_FAULTS, read_faults

        if self.faults is None:
            return ()
        return tuple(read_faults(DEMO_FAULTS if self.faults == "demo" else root / self.faults))
