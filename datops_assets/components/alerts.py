"""The component `FailureWebhook`: one message for each failed run, to the address in the environment."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from datops_assets.config.settings import read_settings

if TYPE_CHECKING:
    from datops_assets.telemetry.failure_webhook import FailedRun


class FailureWebhook(dg.Component, dg.Model, dg.Resolvable):
    """Tells the address in DATOPS_FAILURE_WEBHOOK_URL about every failed run; does nothing while it is unset."""

    name: str = Field("failure_webhook", description="Name of the sensor.")
    web_ui_url: str | None = Field(None, description="Address of the web UI, for a link to the run.")

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """One run failure sensor; it reads the address when it has something to tell."""
        return dg.Definitions(sensors=[failure_sensor(self.name, self.web_ui_url)])


def failure_sensor(name: str, web_ui_url: str | None = None) -> dg.SensorDefinition:
    """The sensor that posts failed runs. An undelivered message is logged with its reason, without the address."""

    @dg.run_failure_sensor(
        name=name,
        default_status=dg.DefaultSensorStatus.RUNNING,
        monitor_all_code_locations=True,
        description="Posts one message for each failed run to DATOPS_FAILURE_WEBHOOK_URL.",
    )
    def tell(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
        from datops_assets.telemetry.failure_webhook import post_failure

        url = read_settings().failure_webhook_url
        if url is None:
            return dg.SkipReason(
                "DATOPS_FAILURE_WEBHOOK_URL is not set; export it, or add it to .env beside workspace.yaml"
            )
        delivery = post_failure(url.get_secret_value(), _failed_run(context, web_ui_url))
        if not delivery.delivered:
            context.log.error(
                f"the failure webhook was not told after {delivery.attempts} attempt(s): {delivery.reason}"
            )
        return None

    return tell


def _failed_run(context: dg.RunFailureSensorContext, web_ui_url: str | None) -> FailedRun:
    from datops_assets.telemetry.failure_webhook import FailedRun

    run = context.dagster_run
    return FailedRun(
        run_id=run.run_id,
        job=run.job_name,
        failed_at=datetime.now(UTC),
        error=_first_cause(context),
        assets=tuple(key.to_user_string() for key in run.asset_selection or ()),
        url=f"{web_ui_url.rstrip('/')}/runs/{run.run_id}" if web_ui_url else None,
    )


def _first_cause(context: dg.RunFailureSensorContext) -> str:
    failures = [event.step_failure_data for event in context.get_step_failure_events()]
    for data in failures:
        if data.user_failure_data is not None and data.user_failure_data.description:
            return str(data.user_failure_data.description)
    return context.failure_event.message or "failed"
