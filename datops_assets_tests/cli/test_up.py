"""`datops up`: what it refuses before anything starts, and what it becomes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = "import sys; from datops_assets.cli import main; sys.argv[0] = 'datops'; main()"


@pytest.fixture
def taken():
    """A port on which something listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_taken_port_is_said_before_anything_starts(shop, monkeypatch, taken):
    monkeypatch.setenv("DATOPS_WAREHOUSE_URL", "postgresql://datops@127.0.0.1:1/nothing")
    said = shop.datops("up", "--port", str(taken), expect=1).stderr
    assert said == (f"datops: port {taken} is taken (another `datops up`?); datops up --port {taken + 1}\n")


@pytest.mark.parametrize("port", ["0", "65536", "-1", "web"])
def test_a_port_that_is_none_is_refused(shop, port):
    assert "--port" in shop.datops("up", "--port", port, expect=2).stderr


def test_up_runs_once_in_a_project_and_ends_on_sigterm_from_a_script(shop):
    """A shell starts `command &` with SIGINT ignored; Dagster takes SIGTERM for SIGINT."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (shop.folder / "dagster.yaml").write_bytes((ROOT / "dagster.yaml").read_bytes())
    before = {file.name for file in shop.folder.iterdir()}
    log = shop.folder / "landing" / "up.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [
                "sh",
                "-c",
                'trap "" INT; exec "$0" "$@"',
                sys.executable,
                "-c",
                PROGRAM,
                "up",
                "--port",
                str(port),
            ],
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    try:
        until = time.monotonic() + 120
        while "Serving dagster-webserver" not in log.read_text():
            assert process.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        said = shop.datops("up", expect=1).stderr
        assert said.startswith(f"datops: datops up already runs here (pid {process.pid}, port {port})")
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        process.kill()
    printed = log.read_text()
    assert "Using temporary directory" not in printed
    assert "Warning" not in printed
    assert {file.name for file in shop.folder.iterdir()} - before == {".datops"}


def test_make_up_takes_a_port():
    done = subprocess.run(
        ["make", "-n", "up", "PORT=3001"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert "datops up --port 3001" in done.stdout
    elsewhere = {**os.environ, "PORT": "8080"}  # what other projects' shells export is not for us
    done = subprocess.run(
        ["make", "-n", "up"], cwd=ROOT, capture_output=True, text=True, timeout=60, env=elsewhere
    )
    assert "datops up --port 3000" in done.stdout
