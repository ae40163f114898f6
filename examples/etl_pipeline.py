"""Extract, transform, load in one script: files in, a checked table and a summary of it, files out.

    ETL_DIR=folder/with/readings ETL_OUT=reports python examples/etl_pipeline.py

ETL_DIR holds `readings/*.csv` with the columns station, measured_at, celsius. The script ends with two
files in ETL_OUT: readings.parquet, and warmest.csv with the warmest day of each station.
"""

from __future__ import annotations

from pathlib import Path

from datops_assets.components.export import run_export
from datops_assets.components.export_document import read_export
from datops_assets.pipelines import (
    ConnectorType,
    DataSource,
    LoadMode,
    Pipeline,
    Severity,
    Task,
    Transformation,
)

EXPORT = """\
export: etl_reports
team: examples
destination: {type: files, path: "${ETL_OUT}"}
tables:
  readings: {from: silver/etl/readings, file: readings.parquet, order_by: [station, measured_at]}
  warmest: {from: silver/etl/warmest, file: warmest.csv, order_by: [station]}
"""

readings = (
    Task("readings", files="readings/*.csv", load=LoadMode.MERGE)
    .key("station", "measured_at")
    .column("station", "text", required=True)
    .column("measured_at", "timestamptz", required=True, timezone="UTC")
    .column("celsius", "numeric(5,2)", required=True, min=-90, max=60)
    .rule(row_count={"min": 1}, severity=Severity.BLOCK)
)
days = (
    Transformation("days", of="readings")
    .derive(day="cast(measured_at as date)")
    .aggregate(by=["station", "day"], mean="round(avg(celsius), 2)", highest="max(celsius)")
)
warmest = Transformation("warmest", of="days").step("dedupe", key=["station"], first_by=["-highest", "day"])

pipeline = Pipeline("etl", team="examples", source=DataSource(ConnectorType.FILES, path="${ETL_DIR}"))
pipeline.add(readings, days, warmest)


def main() -> int:
    """Run all three parts. Returns 0, or 1 when something went wrong."""
    result = pipeline.run()
    for problem in result.problems:
        print(problem)
    if not result.success:
        return 1
    document = Path("etl_export.yaml")
    document.write_text(EXPORT, encoding="utf-8")
    delivered, problems = run_export(read_export(document), Path.cwd())
    for table in delivered:
        print(f"{table['table']}: {table['rows']} rows to {table['delivered_to']}")
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
