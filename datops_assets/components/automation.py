"""What runs by itself when something upstream changed, and the sensor that looks.

The source's own job takes a file to silver. Automation does the rest: gold after silver, and
silver where bronze alone was materialized (by hand, by a backfill).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import dagster as dg

INTERVAL_S = 30
DAILY = {"datops/partitions": "daily"}
"""Tag of assets with daily partitions."""
TO_SILVER = {"datops/layers": "bronze to silver"}
"""Tag of runs that judge what they load; Dagster itself knows that of runs with an asset selection only."""

Condition = dg.AutomationCondition[Any]


def _when(updated: Condition, handled: Condition) -> Condition:
    """Once for each update, as soon as nothing upstream is missing, under way or blocked.

    As Dagster's eager(), but for two things: any day may be asked for, not only the latest;
    rows whose blocking check failed are not taken.
    """
    # A day without a file is no reason to wait: some day of a partitioned table is always missing.
    missing = Condition.any_deps_missing().ignore(dg.AssetSelection.tag(*next(iter(DAILY.items()))))
    return (
        (Condition.newly_missing() | updated).since(handled)
        & ~missing
        & ~Condition.any_deps_in_progress()
        & ~Condition.in_progress()
        & Condition.all_deps_blocking_checks_passed()
    )


def _bronze_updated() -> Condition:
    """Bronze was materialized by a run that did not judge it too. Tables behind foreign keys do not count."""
    judged_too = Condition.executed_with_root_target() | Condition.all_new_updates_have_run_tags(
        tag_values=TO_SILVER
    )
    alone = Condition.newly_updated() & ~judged_too
    bronze = dg.AssetSelection.tag("layer", "bronze")
    return Condition.any_deps_match(alone | Condition.will_be_requested()).allow(bronze)


_HANDLED = Condition.newly_requested() | Condition.newly_updated() | Condition.initial_evaluation()
_SILVER_UPDATED: Condition = Condition.any_deps_updated()

# Values made once: building one costs a tenth of loading a table's definition.
WHEN_SILVER_CHANGED = _when(_SILVER_UPDATED, _HANDLED & ~_SILVER_UPDATED)
"""For gold. An update that arrives while the last one is being handled counts; eager() forgets it until the next."""
WHEN_BRONZE_CHANGED = _when(_bronze_updated(), _HANDLED)
"""For silver. What is forgotten here, the next run of the source's job judges."""


@cache
def when_inputs_changed(pipeline: str) -> Condition:
    """For a transformation of this pipeline: an input was built by a run that did not build it too."""
    built_too = Condition.executed_with_root_target() | Condition.all_new_updates_have_run_tags(
        tag_values={**TO_SILVER, "datops/pipeline": pipeline}
    )
    alone = Condition.newly_updated() & ~built_too
    return _when(Condition.any_deps_match(alone | Condition.will_be_requested()), _HANDLED)


def automation_sensor() -> dg.AutomationConditionSensorDefinition:
    """Looks at the conditions of all assets and starts runs; Dagster's own default would be stopped."""
    return dg.AutomationConditionSensorDefinition(
        "automation",
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=INTERVAL_S,
        description="Builds gold when silver changed, and silver when bronze alone was materialized.",
    )
