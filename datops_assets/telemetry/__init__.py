"""What leaves a process to tell people how it went: log lines and alerts, with secrets blanked."""

from datops_assets.telemetry.logs import set_up_logging
from datops_assets.telemetry.redaction import redact
from datops_assets.telemetry.webhook import Delivery, post_message

__all__ = ["Delivery", "post_message", "redact", "set_up_logging"]
