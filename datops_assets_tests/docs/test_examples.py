"""The examples in the documents work: pipeline documents are valid, marked commands run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml

from datops_assets_tests.docs.markdown import PROJECT, Block, list_blocks, list_pages

BLOCKS = [block for page in list_pages() for block in list_blocks(page)]
RUN_LIMIT_S = 300
LONG = {
    ("tutorials", "cdc.md"),
    ("tutorials", "pipelines.md"),
    ("tutorials", "plugins.md"),
    ("sources", "databases.md"),
    ("sources", "files.md"),
    ("sources", "rest.md"),
    ("sources", "write-a-source.md"),
    ("docs", "backup.md"),
}


PACKAGES = {("sources", "write-a-source.md"), ("tutorials", "plugins.md")}
"""Pages that write a package and install it; `datops validate` there holds what is written for it."""


def _is_pipeline(block: Block) -> bool:
    if block.language != "yaml" or block.page.parts[-2:] in PACKAGES:
        return False
    values = yaml.safe_load(block.text)
    return isinstance(values, dict) and bool({"pipeline", "source_systems"} & values.keys())


def _write(block: Block, folder: Path) -> Path:
    file = folder / (block.title or "pipeline.yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(block.text, encoding="utf-8")
    return file


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=str)
def test_every_yaml_block_parses(block):
    list(yaml.safe_load_all(block.text))


@pytest.mark.parametrize("block", list(filter(_is_pipeline, BLOCKS)), ids=str)
def test_every_pipeline_document_shown_is_valid(block, tmp_path, monkeypatch):
    from datops_assets.components.documents import check_together, read_documents

    for name in re.findall(r"\$\{(\w+)\}", block.text):
        monkeypatch.setenv(name, str(tmp_path))
    documents = read_documents(_write(block, tmp_path), tmp_path)
    assert check_together(documents) == []


def _is_stream(block: Block) -> bool:
    if block.language != "yaml":
        return False
    values = yaml.safe_load(block.text)
    return isinstance(values, dict) and "stream" in values


@pytest.mark.parametrize("block", list(filter(_is_stream, BLOCKS)), ids=str)
def test_every_stream_document_shown_is_valid(block, tmp_path, monkeypatch):
    from datops_assets.components.streams.document import read_stream

    for name in re.findall(r"\$\{(\w+)\}", block.text):
        monkeypatch.setenv(name, "somewhere")
    assert read_stream(_write(block, tmp_path), tmp_path).document.tables


def _is_team_database(block: Block) -> bool:
    values = yaml.safe_load(block.text) if block.language == "yaml" else None
    return isinstance(values, dict) and "database" in values


@pytest.mark.parametrize("block", list(filter(_is_team_database, BLOCKS)), ids=str)
def test_every_team_database_shown_is_valid(block, tmp_path):
    from datops_assets.components.databases.document import read_team_database

    assert read_team_database(_write(block, tmp_path), tmp_path).document.desired().logins


@pytest.mark.parametrize(
    "block", [b for b in BLOCKS if b.language == "yaml" and b.text.startswith("contract:")], ids=str
)
def test_every_contract_shown_is_valid(block):
    from datops_assets.quality import Contract

    assert Contract.model_validate(yaml.safe_load(block.text)["contract"]).columns


@pytest.mark.parametrize(
    "page",
    [
        # The steps of the long ones stand in other pages, or in tests of their own, too.
        pytest.param(page, marks=[pytest.mark.slow] if page.parts[-2:] in LONG else [])
        for page in sorted({block.page for block in BLOCKS if block.runs})
    ],
    ids=lambda page: page.name,
)
def test_the_marked_commands_of_a_page_run_from_top_to_bottom(page, tmp_path):
    """```bash run blocks, in an empty project; blocks with title=NAME are files there."""
    (tmp_path / "workspace.yaml").write_text((PROJECT / "workspace.yaml").read_text(encoding="utf-8"))
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("DATOPS_", "PG"))
    }
    programs = Path(sys.executable).parent
    if page.parts[-2:] in PACKAGES:
        programs = _environment_of_its_own(tmp_path / ".venv")
        environment |= {
            "VIRTUAL_ENV": str(tmp_path / ".venv"),
            "UV_OFFLINE": "1",
            "UV_NO_BUILD_ISOLATION": "1",
        }
    environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"
    try:
        for block in list_blocks(page):
            if block.title:
                _write(block, tmp_path)
            if block.runs:
                command = ["bash", "-euo", "pipefail", "-c", block.text]
                done = subprocess.run(
                    command,
                    cwd=tmp_path,
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=RUN_LIMIT_S,
                )
                assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    finally:
        subprocess.run(
            ["datops", "warehouse", "stop"], cwd=tmp_path, env=environment, capture_output=True, check=False
        )


def _environment_of_its_own(folder: Path) -> Path:
    """An environment that sees all of this one, for a package to be installed in; returns its programs."""
    uv = [sys.executable, "-m", "uv", "venv", "--quiet", "--offline", "--python", sys.executable, str(folder)]
    subprocess.run(uv, check=True, timeout=60)
    (packages,) = folder.glob("lib/python*/site-packages")
    # The project is installed as a link, which only its own environment follows.
    (packages / "outer.pth").write_text(f"{sysconfig.get_path('purelib')}\n{PROJECT}\n")
    datops = folder / "bin" / "datops"
    datops.write_text(f"#!{folder / 'bin' / 'python'}\nfrom datops_assets.cli import main\n\nmain()\n")
    datops.chmod(0o755)
    (folder / "bin" / "uv").symlink_to(Path(sys.executable).parent / "uv")
    return folder / "bin"
