"""The wheel alone, in an environment of its own, far from the clone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
UV = [sys.executable, "-m", "uv"]
LOAD = """
import datops_assets
from datops_assets.definitions import defs
assert "site-packages" in datops_assets.__file__
print(sorted({key.path[0] for key in defs().resolve_asset_graph().get_all_asset_keys()}))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel and the pinned packages; its folder of programs."""
    folder = tmp_path_factory.mktemp("wheel")
    # By way of the sdist, so that nothing is left in the clone and the sdist is known to be whole.
    run(*UV, "build", "--quiet", "--out-dir", str(folder), str(PROJECT), cwd=folder)
    [wheel] = folder.glob("*.whl")
    run(*UV, "venv", "--quiet", "--python", sys.executable, "venv", cwd=folder)
    python = str(folder / "venv" / "bin" / "python")
    pinned = str(PROJECT / "requirements.txt")
    run(*UV, "pip", "install", "--quiet", "--python", python, "-r", pinned, str(wheel), cwd=folder)
    return folder / "venv" / "bin"


def run(*command: str, cwd: Path) -> str:
    variables = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow  # builds, installs 150 packages from uv's cache and parses the dbt project
def test_the_wheel_alone_validates_and_loads_every_layer(environment, tmp_path):
    assert "are valid" in run(str(environment / "datops"), "validate", cwd=tmp_path)
    layers = run(str(environment / "python"), "-c", LOAD, cwd=tmp_path)
    assert layers.splitlines()[-1] == "['bronze', 'gold', 'silver', 'synthetic']"
