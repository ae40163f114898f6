"""Why a dbt run failed, from the results it leaves on disk, as sentences with the next command."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_AGAIN = "dagster asset materialize -m datops_assets.definitions --select 'group:gold'"


def what_failed(target: Path, errors: Sequence[str]) -> str:
    """Say which models and tests failed and what to do.

    target  folder of the run's artefacts
    errors  what dbt printed at level error; used where it died before it wrote results
    """
    results = _read_results(target)
    broken = [r for r in results if r["status"] in ("error", "runtime error")]
    failing = [r for r in results if r["status"] == "fail"]
    skipped = [r for r in results if r["status"] == "skipped" and not r["unique_id"].startswith("test.")]
    if not broken and not failing:
        said = "\n".join(errors) or f"no message; look into {target / 'dbt.log'}"
        return f"dbt stopped before it built anything: {said}"
    sentences = [f"{_name(r)} could not be built: {r['message']}" for r in broken]
    sentences += [f"test {_name(r)} failed: {r['failures']} row(s)" for r in failing]
    if skipped:
        sentences.append("not built, because they read what failed: " + ", ".join(map(_name, skipped)))
    sentences.append(f"The queries are in {target / 'compiled'}. When it is repaired: {_AGAIN}")
    return "\n".join(sentences)


def _read_results(target: Path) -> list[Mapping[str, Any]]:
    path = target / "run_results.json"
    if not path.is_file():
        return []
    results: list[Mapping[str, Any]] = json.loads(path.read_bytes())["results"]
    return results


def _name(result: Mapping[str, Any]) -> str:
    return str(result["unique_id"].split(".")[2])
