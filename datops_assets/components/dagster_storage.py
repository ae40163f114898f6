"""Dagster's own history in PostgreSQL, without a variable set.

`dagster.yaml` names this class, so every Dagster process finds the same history:
`dagster dev`, the daemon, a run, `dagster asset materialize`. Dagster passes the class
and its configuration to run processes, never the URL, so the password is in no
argument and no event.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster._config.config_schema import UserConfigSchema
from dagster._serdes import ConfigurableClassData
from dagster_postgres.storage import DagsterPostgresStorage

from datops_assets.config.settings import forget_libpq_variables, read_settings
from datops_assets.resources.warehouse import open_dagster_database


class DatopsDagsterStorage(DagsterPostgresStorage):
    """History at DATOPS_DAGSTER_URL, else on the server that comes with datops, which is started."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """What `storage.custom.config` in dagster.yaml may hold."""
        return {
            "should_autocreate_tables": dg.Field(
                bool,
                is_required=False,
                default_value=True,
                description="False where a migration job makes the tables.",
            )
        }

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> DatopsDagsterStorage:
        """Called by Dagster in each process that opens its instance."""
        database = open_dagster_database(read_settings())
        forget_libpq_variables()
        return cls(
            inst_data=inst_data,
            postgres_url=database.sqlalchemy_url,
            should_autocreate_tables=config_value.get("should_autocreate_tables", True),
        )
