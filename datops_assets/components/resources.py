"""Dagster resources for a team's own assets: a PostgreSQL database, and a way to tell people.

Shells only: what they do is in resources/ and telemetry/. Secrets are named, not given: a
resource holds the name of a variable and reads it when it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from datops_assets.components.failures import failing_as_dagster
from datops_assets.config.settings import expand, read_secret, read_settings

if TYPE_CHECKING:
    import psycopg

    from datops_assets.resources.warehouse import Warehouse
    from datops_assets.telemetry import Delivery


class PostgresResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """A PostgreSQL database; without `url_env` the warehouse itself, started where it is ours.

    Use it as `with postgres.connect() as conn:` for psycopg, or hand `postgres.open().url`
    to another driver.
    """

    url_env: str | None = Field(
        default=None,
        description="Variable that holds the database's URL. Unset: the warehouse of this project.",
    )
    statement_timeout_s: int | None = Field(
        default=None, ge=1, description="Longest that one statement may take. Unset: as long as it takes."
    )

    def open(self) -> Warehouse:
        """Say where the database is and how to log in; its URL holds the password.

        raises  dg.Failure: the variable is unset or no URL, or the server does not let us in
        """
        from datops_assets.resources.warehouse import check_version, open_warehouse, parse_url

        with failing_as_dagster():
            if self.url_env is None:
                return open_warehouse(read_settings())
            return check_version(parse_url(read_secret(self.url_env).get_secret_value(), self.url_env))

    @contextmanager
    def connect(self, **parameters: Any) -> Iterator[psycopg.Connection[Any]]:
        """Open a connection for the length of a with block: autocommit, TimeZone UTC.

        parameters  as psycopg.connect takes them, over those of the URL
        raises      as `open`
        """
        database = self.open()
        with failing_as_dagster():
            conn = database.connect(**parameters)
        with conn:
            if self.statement_timeout_s is not None:
                timeout_ms = str(self.statement_timeout_s * 1000)
                conn.execute("select set_config('statement_timeout', %s, false)", [timeout_ms])
            yield conn


class AlertResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Tells people through a webhook; without an address it says so and does nothing."""

    url_env: str = Field(
        default="DATOPS_FAILURE_WEBHOOK_URL",
        description="Variable that holds the address. The address is the secret.",
    )

    def send(self, text: str, **facts: Any) -> Delivery:
        """POST one JSON message: `text` for chat services, `facts` for programs.

        returns  whether it arrived, and in words why not; never the address
        raises   nothing: an alert that is lost must not fail the asset that sent it
        """
        from datops_assets.telemetry import Delivery, post_message

        url = expand(self.url_env)
        if not url:
            return Delivery(False, 0, f"variable {self.url_env} is not set")
        return post_message(url, {**facts, "event": "alert", "text": text})
