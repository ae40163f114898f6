"""`make` on machines that are not ours: which Python is taken, and what is said when there is none.

Nothing is installed here: .ci/environment runs in an empty folder and stops before that.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
MISSING_SHIM = "#!/bin/sh\necho 'pyenv: python3: command not found' >&2\nexit 127\n"
REAL = f'#!/bin/sh\nexec {sys.executable} "$@"\n'
WITHOUT_VENV = (
    f'#!/bin/sh\ncase "$*" in *ensurepip*) exit 1;; *"-m venv"*) exit 3;; esac\nexec {sys.executable} "$@"\n'
)
# Stands for a Python that would be taken: makes no environment, only says that it was asked to.
CHOSEN = f'#!/bin/sh\ncase "$*" in *"-m venv"*) echo "chosen $0"; exit 9;; esac\nexec {sys.executable} "$@"\n'


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    folder = tmp_path / "a clone"
    (folder / ".ci").mkdir(parents=True)
    shutil.copy(PROJECT / ".ci" / "environment", folder / ".ci")
    shutil.copy(PROJECT / "uv.lock", folder)
    for tool in ("sh", "sed", "cat", "rm", "dirname"):
        _program(tmp_path / "system" / tool, f'#!/bin/sh\nexec {shutil.which(tool)} "$@"\n')
    return folder


def _program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def _make_environment(clone: Path, *folders: str, **variables: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(clone.parent / folder) for folder in (*folders, "system"))
    environment = {"PATH": path, "HOME": str(clone.parent), **variables}
    script = [clone / ".ci" / "environment"]
    return subprocess.run(script, cwd="/", env=environment, capture_output=True, text=True, timeout=60)


def test_a_machine_without_python_gets_one_sentence(clone):
    done = _make_environment(clone)
    assert done.returncode == 1
    assert done.stderr == (
        "datops: no Python 3.11, 3.12 or 3.13 on PATH: "
        "install one, or name it with make PYTHON=/path/to/python3\n"
    )


def test_a_python_without_its_venv_module_gets_one_sentence(clone):
    python = _program(clone.parent / "bin" / "python3", WITHOUT_VENV)
    done = _make_environment(clone, "bin")
    assert done.returncode == 1
    assert done.stderr == (
        f"datops: {python} has no venv module: "
        "install it (Debian, Ubuntu: apt install python3-venv), then try again\n"
    )


def test_a_shim_that_fails_is_passed_over_for_the_real_one_behind_it(clone):
    _program(clone.parent / "shims" / "python3", MISSING_SHIM)
    _program(clone.parent / "shims" / "python3.12", MISSING_SHIM)
    real = _program(clone.parent / "bin" / "python3", CHOSEN)
    done = _make_environment(clone, "shims", "bin")
    assert f"chosen {real}" in done.stdout


def test_a_python_that_can_make_environments_is_preferred_to_an_earlier_one_that_cannot(clone):
    _program(clone.parent / "first" / "python3", WITHOUT_VENV)
    second = _program(clone.parent / "second" / "python3.11", CHOSEN)
    assert f"chosen {second}" in _make_environment(clone, "first", "second").stdout


def test_pyenv_versions_are_found_where_no_shim_is_switched_on(clone):
    real = _program(clone.parent / ".pyenv" / "versions" / "3.12.1" / "bin" / "python3", CHOSEN)
    assert f"chosen {real}" in _make_environment(clone).stdout


def test_a_named_python_that_does_not_fit_is_refused(clone):
    _program(clone.parent / "bin" / "python3", REAL)
    done = _make_environment(clone, "bin", PYTHON="/bin/false")
    assert done.returncode == 1
    assert done.stderr == "datops: PYTHON=/bin/false is not a Python 3.11, 3.12 or 3.13 that runs\n"


def test_make_alone_lists_the_commands():
    done = subprocess.run(["make"], cwd=PROJECT, capture_output=True, text=True, timeout=60)
    for command in ("demo", "test", "test-all", "up", "dev", "check", "fmt", "bench", "docs"):
        assert f"  make {command} " in done.stdout
