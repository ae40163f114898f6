"""`python -m benchmarks [DOMAIN]`."""

from __future__ import annotations

import sys

from benchmarks import (
    backups,
    databases_to_bronze,
    definitions_load,
    files_to_bronze,
    one_row_run,
    rest_to_bronze,
    stream_lag,
    streams,
    to_silver,
)
from benchmarks.harness import bench_server, write_results

DOMAINS = {
    "ingestion": files_to_bronze.measure,
    "databases": databases_to_bronze.measure,
    "rest": rest_to_bronze.measure,
    "quality": to_silver.measure,
    "definitions": definitions_load.measure,
    "cli": one_row_run.measure,
    "streams": streams.measure,
    "backups": backups.measure,
    "lag": stream_lag.measure,
}


def main() -> int:
    """Run one domain, or all."""
    wanted = sys.argv[1:] or list(DOMAINS)
    unknown = [name for name in wanted if name not in DOMAINS]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}, expected one of: {', '.join(DOMAINS)}", file=sys.stderr)
        return 2
    with bench_server() as bench:
        for name in wanted:
            DOMAINS[name](bench)
            write_results(bench.comparisons)
    return 0


sys.exit(main())
