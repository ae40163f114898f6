"""How lists stand in the web UI: a list in the metadata of an asset, one entry a line in that of a check.

The page of a check hides Markdown and JSON behind a link; plain text it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg

MOST_SHOWN = 50


def as_list(lines: Sequence[str]) -> dg.MetadataValue[Any]:
    """Lines of Markdown, for an asset."""
    shown = [f"- {line}" for line in lines[:MOST_SHOWN]]
    more = [f"\n… and {len(lines) - MOST_SHOWN} more"] if len(lines) > MOST_SHOWN else []
    return dg.MetadataValue.md("\n".join([*shown, *more]) or "none")


def as_entries(name: str, lines: Sequence[str]) -> dict[str, dg.MetadataValue[Any]]:
    """An entry of plain text for each line, for a check: `step 01`, `step 02`…; none where there is no line."""
    shown: dict[str, dg.MetadataValue[Any]] = {
        f"{name} {number:02}": dg.MetadataValue.text(line)
        for number, line in enumerate(lines[:MOST_SHOWN], 1)
    }
    if len(lines) > MOST_SHOWN:
        shown["more"] = dg.MetadataValue.text(f"{len(lines) - MOST_SHOWN} more")
    return shown
