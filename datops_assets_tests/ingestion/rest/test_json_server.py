"""A REST server that nobody here wrote: json-server from npm, with its own idea of pages, totals and links."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from datops_assets.ingestion import rest
from datops_assets_tests.ingestion.rest.conftest import RestLab

pytestmark = pytest.mark.slow
PACKAGE = "json-server@0.17.4"
ORDERS = 57


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that starts it, installed into a folder of the test."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("npm and node are not on this machine; they bring json-server")
    folder = tmp_path_factory.mktemp("json-server")
    install = [
        npm,
        "install",
        "--no-audit",
        "--no-fund",
        "--prefer-offline",
        "--prefix",
        str(folder),
        PACKAGE,
    ]
    try:
        done = subprocess.run(install, capture_output=True, text=True, timeout=180)
    except subprocess.TimeoutExpired:
        pytest.skip("npm's registry does not answer")
    if done.returncode != 0:
        pytest.skip(f"npm cannot bring {PACKAGE} to this machine")
    return [node, str(folder / "node_modules" / "json-server" / "lib" / "cli" / "bin.js")]


@dataclass
class JsonServer:
    """Where it listens."""

    url: str


@pytest.fixture
def json_server(program: list[str], tmp_path: Path) -> Iterator[JsonServer]:
    """Running, with orders and a profile in it."""
    orders = [
        {"id": number, "total": f"{number}.10", "updated_at": f"2026-01-01T00:{number:02}:00Z"}
        for number in range(1, ORDERS + 1)
    ]
    data = tmp_path / "db.json"
    data.write_text(json.dumps({"orders": orders, "profile": {"name": "shop", "tags": ["a"]}}))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [*program, "--quiet", "--host", "127.0.0.1", "--port", str(port), str(data)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(100):
            try:
                if httpx.get(f"{url}/profile", trust_env=False).is_success:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        else:
            pytest.fail("json-server does not answer within 10 s")
        yield JsonServer(url)
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def far(lab: RestLab, json_server: JsonServer) -> RestLab:
    """The table of orders there."""
    lab.connect(url=json_server.url)
    return lab


PAGINATIONS = {
    "page, until empty": rest.PageNumber("_page", size_param="_limit", size=10),
    "page, with a total": rest.PageNumber(
        "_page", size_param="_limit", size=10, total_header="X-Total-Count"
    ),
    "offset, with a total": rest.Offset("_start", size_param="_limit", size=10, total_header="X-Total-Count"),
    "one answer": rest.SinglePage(),
}


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("pagination", PAGINATIONS.values(), ids=PAGINATIONS)
def test_each_way_of_its_pages_brings_all_in_order(
    far: RestLab, pagination: rest.Pagination, concurrency: int
) -> None:
    far.connect(concurrency=concurrency)
    far.declare(pagination=pagination)
    assert far.load().failed == []
    assert far.ids() == list(range(1, ORDERS + 1))


def test_its_links(far: RestLab) -> None:
    far.declare(params={"_page": 1, "_limit": 10}, pagination=rest.LinkHeader())
    far.load()
    assert far.ids() == list(range(1, ORDERS + 1))


def test_only_what_is_new(far: RestLab, json_server: JsonServer) -> None:
    far.declare(
        pagination=rest.PageNumber("_page", size_param="_limit", size=10, total_header="X-Total-Count"),
        incremental=rest.Incremental("updated_at_gte", "updated_at"),
    )
    assert far.load().rows_added == ORDERS
    assert far.load().rows_added == 0
    new = {"id": 99, "total": "9.10", "updated_at": "2026-01-02T00:00:00Z"}
    assert httpx.post(f"{json_server.url}/orders", json=new, trust_env=False).status_code == 201
    assert far.load().rows_added == 1
    assert far.ids()[-1] == 99


READER = """
import sys
import psycopg
from datops_assets.ingestion import load_table, rest

url, api_url = sys.argv[1:]
table = rest.RestTable(
    source="shop", name="orders", path="orders", disposition="replace",
    pagination=rest.PageNumber("_page", size_param="_limit", size=5, total_header="X-Total-Count"),
    portions=rest.ChunkLimits(pages=2),
)
api = rest.Api(url=api_url, allow_private=True, requests_per_s=4)
with psycopg.connect(url, autocommit=True) as conn, rest.RestSource(api) as source:
    load_table(conn, source, table, batch="killed")
"""


def test_a_slow_reading_that_is_killed_half_way_is_gone_on_with(far: RestLab) -> None:
    """kill -9 once four pages of twelve are kept; the next run brings the others, each order once."""
    kept = "select count(*) from datops.kept_portions"
    process = subprocess.Popen([sys.executable, "-c", READER, far.warehouse.url, far.declared.url])
    try:
        for _ in range(600):
            if far.warehouse.fetch(kept)[0][0] >= 2:
                break
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait(10)
    ((count,),) = far.warehouse.fetch(kept)
    assert 2 <= count < 6
    far.connect(requests_per_s=4)
    far.declare(
        pagination=rest.PageNumber("_page", size_param="_limit", size=5, total_header="X-Total-Count"),
        disposition="replace",
        portions=rest.ChunkLimits(pages=2),
    )
    assert far.load().failed == []
    assert far.ids() == list(range(1, ORDERS + 1))
    assert far.warehouse.fetch(kept) == [(0,)]


def test_one_object(far: RestLab) -> None:
    far.declare(path="profile", single=True)
    far.load()
    assert far.values("name", "tags") == [("shop", ["a"])]


def test_an_address_it_does_not_have(far: RestLab) -> None:
    far.declare(path="nowhere")
    assert "status 404" in str(far.refused().error)
