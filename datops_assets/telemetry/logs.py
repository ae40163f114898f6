"""Log lines of the command line: plain, on standard error, with secrets blanked.

Runs inside Dagster log through Dagster; structured logs of every process are not here yet.
"""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Collection
from typing import TextIO

from datops_assets.telemetry.redaction import redact

_ROOT = "datops_assets"


class _PlainFormatter(logging.Formatter):
    """`warning: message`; at debug also time and module. A traceback is blanked like the rest."""

    def __init__(self, *, verbose: bool, secrets: Collection[str]) -> None:
        super().__init__(
            "%(asctime)s %(levelname)s %(name)s: %(message)s" if verbose else "%(levelname)s: %(message)s"
        )
        self._secrets = tuple(secrets)

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback if there is one."""
        shown = copy.copy(record)
        shown.levelname = record.levelname.lower()
        return redact(super().format(shown), self._secrets)


def set_up_logging(
    level: int = logging.WARNING, *, secrets: Collection[str] = (), stream: TextIO | None = None
) -> None:
    """Send what datops logs from `level` on to `stream` (standard error), once however often it is called.

    Loggers of libraries stay as their owners left them.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_PlainFormatter(verbose=level <= logging.DEBUG, secrets=secrets))
    logger = logging.getLogger(_ROOT)
    logger.handlers = [handler]
    logger.setLevel(level)
    logger.propagate = False
