"""A table of gold whose values are the awkward ones, and ways to deliver it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROWS = """
create table gold.sales (
    id bigint, country text, total numeric(12,2), sold_on date, sold_at timestamptz, doc json, ok boolean
);
insert into gold.sales values
    (1, 'DE', 10.50, '2026-01-05', '2026-01-05 10:00:00.123456+00', '{"a": [1, null]}', true),
    (2, '', -0.01, null, null, null, false),
    (3, E'a,"b"\\nc', null, '2026-01-07', '2026-01-07 00:00+02', '[]', null),
    (4, null, 99999999.99, '0001-01-01', '2026-01-08 00:00+00', '"é"', true);
"""


@pytest.fixture
def sales(warehouse):
    """The connection to a warehouse with gold.sales."""
    warehouse.conn.execute(ROWS)
    return warehouse.conn


KILLED = """
import sys
from pathlib import Path
import psycopg
from datops_assets.components.export import deliver_table
from datops_assets.components.catalogue import open_catalogue
from datops_assets.components.export_document import read_export
from datops_assets.postgres import failpoints
path, name, marker, failpoint, hits = sys.argv[1:]
if failpoint:
    failpoints.arm(failpoint, int(hits))
with open_catalogue() as catalogue:
    delivered = deliver_table(catalogue, read_export(Path(path)), name, marker=marker)
    print(delivered.rows, delivered.changed)
"""


@pytest.fixture
def deliver_by_process(project: Path):
    """Deliver a table of a document in a process of its own; it dies at a failpoint if one is named."""

    def run(
        document: str, table: str = "sales", marker: str = "run-1", failpoint: str = "", hits: int = 1
    ) -> str:
        path = project / "export.yaml"
        path.write_text(document)
        arguments = [str(path), table, marker, failpoint, str(hits)]
        done = subprocess.run(
            [sys.executable, "-c", KILLED, *arguments],
            cwd=project,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == (-signal.SIGKILL if failpoint else 0), done.stderr
        return done.stdout.strip()

    return run
