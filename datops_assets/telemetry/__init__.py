"""What leaves a process to tell people how it went: log lines and failure messages, with secrets blanked."""

from datops_assets.telemetry.failure_webhook import Delivery, FailedRun, post_failure, post_message
from datops_assets.telemetry.logs import set_up_logging
from datops_assets.telemetry.redaction import redact

__all__ = ["Delivery", "FailedRun", "post_failure", "post_message", "redact", "set_up_logging"]
