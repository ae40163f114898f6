"""A small pipeline in a project of its own, and the command as a person types it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from datops_assets.cli import _app

DOCUMENT = """\
pipeline: store
team: commerce
source: {type: files, path: landing}
retries: {max: 0}
tables:
  customers:
    files: customers/*.csv*
    load: merge
    contract:
      key: [customer_id]
      columns:
        customer_id: {type: bigint, required: true}
        country: {type: text, in: [DE, FR], max_ratio: 0.5, severity: block}
  orders:
    files: orders/*.csv*
    load: merge
    contract:
      key: [order_id]
      columns:
        order_id: {type: bigint, required: true}
        customer_id: {type: bigint}
        total: {type: "numeric(12,2)", min: 0}
      rules:
        - {name: known_customer, foreign_key: [customer_id], references: customers, columns: [customer_id]}
  notes:
    files: notes/*.jsonl
"""


@dataclass
class Shop:
    """The project: its document, its landing folder, and the command."""

    folder: Path

    def put(self, path: str, content: str | bytes) -> Path:
        """Write a file below the landing folder."""
        file = self.folder / "landing" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    def declare(self, old: str, new: str) -> None:
        """Change the document."""
        text = (self.folder / "pipeline.yaml").read_text()
        assert old in text
        (self.folder / "pipeline.yaml").write_text(text.replace(old, new))

    def datops(self, *arguments: str, expect: int = 0) -> Result:
        """Run a command; `--config pipeline.yaml` is the caller's."""
        result = CliRunner().invoke(_app(), arguments)
        assert result.exit_code == expect, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        return result

    def json(self, *arguments: str, expect: int = 0) -> Any:
        """Run a command with --json and read its answer: one document, and nothing else on stdout."""
        return json.loads(self.datops(*arguments, "--json", expect=expect).stdout)

    def run(self, expect: int = 0) -> Any:
        """Load and judge what is new."""
        return self.json("pipeline", "run", "--config", "pipeline.yaml", expect=expect)


@pytest.fixture
def shop(project: Path) -> Shop:
    """Two customers; three orders, of which one is below zero and one of nobody; a note."""
    (project / "pipeline.yaml").write_text(DOCUMENT)
    found = Shop(project)
    found.put("customers/1.csv", "customer_id,country\n1,DE\n2,FR\n")
    found.put("orders/1.csv", "order_id,customer_id,total\n10,1,5.00\n11,2,-1.00\n12,9,7.00\n")
    found.put("notes/1.jsonl", '{"text": "hello"}\n')
    return found
