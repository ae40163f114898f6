"""Tests keep their servers in memory only where there is room and programs may run."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from datops_assets_tests.scratch import scratch_root


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount shared memory with these options."""

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", tmp_path]
        if subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("only root may mount shared memory here")
        return tmp_path

    yield mount
    subprocess.run(["umount", tmp_path], capture_output=True)


@pytest.mark.parametrize("options", ["size=64m", "size=64g,noexec"])
def test_shared_memory_that_is_small_or_runs_no_programs_is_left_alone(
    memory: Callable[[str], Path], options: str
) -> None:
    """64 MB are what a container has where nobody asked for more."""
    assert scratch_root(memory(options)) == Path("/tmp")


def test_where_there_is_no_shared_memory_it_is_tmp(tmp_path: Path) -> None:
    assert scratch_root(tmp_path / "shm") == Path("/tmp")


def test_who_asks_for_the_disk_gets_it(
    memory: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    roomy = memory("size=64g")
    monkeypatch.delenv("DATOPS_TESTS_ON_DISK", raising=False)
    assert scratch_root(roomy) == roomy
    monkeypatch.setenv("DATOPS_TESTS_ON_DISK", "1")
    assert scratch_root(roomy) == Path("/tmp")
