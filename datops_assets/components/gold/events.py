"""From what dbt prints to what Dagster records: dagster-dbt's own conversion, fed line by line.

dagster-dbt's DbtCliResource would do this too, but it asks PyPI for dbt's newest version
on the way and connects a second adapter in our process: 8 to 10 s a step instead of 3 to 4.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg

_RESULTS = {"LogModelResult", "LogSnapshotResult", "LogSeedResult", "LogTestResult"}


@dataclass
class EventReader:
    """Reads the lines of one dbt run.

    target    folder of the run's artefacts; dbt writes its manifest there before the first result
    errors    what dbt said at level error, in order
    """

    context: dg.AssetExecutionContext
    target: Path
    errors: list[str] = field(default_factory=list)
    _columns: dict[str, dict[str, Any]] = field(default_factory=dict)

    def read(self, line: str) -> Iterator[Any]:
        """Log one line and yield the Dagster events it stands for, mostly none."""
        event = _parse(line)
        if event is None:
            if line.strip():
                self.context.log.info(line.rstrip())
            return
        name, message = event["info"]["name"], event["info"]["msg"]
        node = event["data"].get("node_info", {}).get("unique_id")
        if name == "JinjaLogInfo" and self._remember_columns(node, message):
            return
        self._log(event["info"]["level"], name, message)
        if name in _RESULTS and node is not None:
            yield from self._convert(event, node)

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        """The manifest of this run: it names the database that the run really is on."""
        manifest: Mapping[str, Any] = json.loads((self.target / "manifest.json").read_bytes())
        return manifest

    def explain(self, result: dg.AssetCheckResult) -> tuple[str, dict[str, Any]]:
        """Say what a test found, and give the query that shows it where it did not pass."""
        if result.passed:
            return "no row fails", {}
        node = self.manifest["nodes"][result.metadata["unique_id"].value]
        failing = result.metadata.get("dagster_dbt/failed_row_count")
        compiled = self.target / "compiled" / node["package_name"] / node["original_file_path"]
        if node.get("test_metadata"):  # a generic test lies in a folder named after the file that asks for it
            compiled = compiled / node["path"]
        if failing is None:
            return "the test itself could not run: " + (self.errors[-1] if self.errors else "see dbt.log"), {}
        query = compiled.read_text(encoding="utf-8").strip() if compiled.is_file() else ""
        sentence = f"{failing.value} row(s) fail; the query in `sql` shows them"
        return sentence, {"sql": dg.MetadataValue.md(f"```sql\n{query}\n```")}

    @cached_property
    def _translator(self) -> Any:
        from datops_assets.components.gold.translator import GoldTranslator

        return GoldTranslator()

    def _convert(self, event: dict[str, Any], node: str) -> Iterator[Any]:
        from dagster_dbt.core.dbt_cli_event import DbtCoreCliEventMessage

        message = DbtCoreCliEventMessage(raw_event=event, event_history_metadata=self._columns.get(node, {}))
        yield from message.to_default_asset_events(
            manifest=self.manifest,
            dagster_dbt_translator=self._translator,
            context=self.context,
            target_path=self.target,
        )

    def _remember_columns(self, node: str | None, message: str) -> bool:
        """Take what the macro log_columns says; False where a project's own log line came."""
        said = _parse(message)
        if said is None or node is None or "columns" not in said:
            return False
        self._columns[node] = said
        self._write_compiled_snapshot(node, said.pop("compiled", None))
        return True

    def _write_compiled_snapshot(self, node: str, compiled: str | None) -> None:
        # Lineage is read from the compiled SQL on disk; dbt writes that of snapshots from 1.12 on.
        properties = self.manifest["nodes"][node]
        if compiled is None or properties["resource_type"] != "snapshot":
            return
        folder = self.target / "compiled" / properties["package_name"] / properties["original_file_path"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{properties['name']}.sql").write_text(compiled, encoding="utf-8")

    def _log(self, level: str, name: str, message: str) -> None:
        if level == "error":
            self.errors.append(message)
            self.context.log.error(message)
        elif level == "warn":
            self.context.log.warning(message)
        elif name in _RESULTS:
            self.context.log.info(message)


def _parse(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None
