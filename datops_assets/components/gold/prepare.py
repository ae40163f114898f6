"""Parse a dbt project and translate it to assets. A program: project.py runs it as a child.

Its arguments: project folder, folder to write, select, exclude.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from datops_assets.components.gold.graph import translate, write_graph
from datops_assets.components.gold.process import CANNOT_PARSE, dbt_arguments


def main(project: str, target: str, select: str, exclude: str) -> int:
    """Write manifest.json, partial_parse.msgpack and graph.json; CANNOT_PARSE where dbt cannot."""
    from dbt.cli.main import dbtRunner

    folder = Path(target)
    outcome = dbtRunner().invoke(["parse", "--log-level", "none", *dbt_arguments(Path(project), folder)])
    if not outcome.success:
        if outcome.exception is not None:
            sys.stdout.write(f"{outcome.exception}\n")
        return CANNOT_PARSE
    manifest = json.loads((folder / "manifest.json").read_bytes())
    write_graph(translate(manifest, select, exclude), folder / "graph.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
