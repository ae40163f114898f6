"""Sources for the tests of components: documents in an empty project, files in its landing folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from datops_assets.components.document import PipelineDocument
from datops_assets.components.documents import read_documents


class Landing:
    """The folder that a document of the project names as its source."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self.folder = project / "landing"

    def put(self, path: str, content: str | bytes) -> Path:
        """Write a file below the landing folder."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    def declare(self, text: str) -> PipelineDocument:
        """Write a pipeline document and read it."""
        (self.project / "pipeline.yaml").write_text(text)
        (loaded,) = read_documents(self.project / "pipeline.yaml", self.project)
        return loaded.document


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    """The landing folder of the test's project. Tests that run something ask for `project` too."""
    return Landing(tmp_path)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """A Dagster instance without history."""
    with dg.DagsterInstance.ephemeral() as made:
        yield made
