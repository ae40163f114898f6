"""What `datops up` becomes: `dagster dev`, without its notice that nothing will be kept.

Dagster says so wherever DAGSTER_HOME is not set. History is kept in PostgreSQL all the same
(dagster.yaml); setting the variable instead would make Dagster leave folders of its own there.
"""

from __future__ import annotations

import logging
import runpy
import sys

_UNTRUE_HERE = ("Using temporary directory", "To persist information across sessions")


def _is_true(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_UNTRUE_HERE)


if __name__ == "__main__":
    logging.getLogger("dagster").addFilter(_is_true)
    sys.argv[1:1] = ["dev"]
    runpy.run_module("dagster", run_name="__main__")
