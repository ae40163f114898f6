"""Dagster resources for a team's own assets: a PostgreSQL database, and a way to tell people.

Shells only: what they do is in resources/ and telemetry/. Secrets are named, not given: a
resource holds the name of a variable and reads it when it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

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
    """Tells people what an asset has to say; without an address it says so and does nothing."""

    address_env: str = Field(
        default="DATOPS_ALERT_ADDRESS",
        description="Variable that holds the address, as of an AlertRoute. The address is the secret.",
    )

    def send(
        self, text: str, severity: Literal["info", "warning", "critical"] = "warning", **facts: Any
    ) -> Delivery:
        """Tell it once, by the way that alerts go: `text` for people, `facts` for programs.

        returns  whether it arrived, and in words why not; never the address
        raises   nothing: an alert that is lost must not fail the asset that sent it
        """
        from datops_assets.components.alert_channels import find_channel
        from datops_assets.telemetry.alerts import Alert, Event, Message
        from datops_assets.telemetry.delivery import deliver
        from datops_assets.telemetry.webhook import Delivery

        address = expand(self.address_env)
        if not address:
            return Delivery(False, 0, f"variable {self.address_env} is not set")
        event = Event("said", "asset", severity, text, datetime.now(UTC), lasts=False, facts=facts)
        message = Message("asset", severity, f"{severity}: {text.splitlines()[0][:100]}", (Alert(event),))
        return deliver(address, message, secrets=[address], find_channel=find_channel)
