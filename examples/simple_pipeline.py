"""The pipeline of simple_pipeline.yaml, built in Python: checked, planned, run, looked at.

    SIMPLE_DIR=folder/with/orders python examples/simple_pipeline.py

The folder holds `orders/*.csv` with the columns order_id, country, ordered_on, total.
"""

from __future__ import annotations

from datops_assets.pipelines import ConnectorType, DataSource, LoadMode, Pipeline, Task, Transformation

orders = (
    Task("orders", files="orders/*.csv", load=LoadMode.MERGE)
    .key("order_id")
    .column("order_id", "bigint", required=True, min=1)
    .column("country", "text", required=True, regex="^[A-Z]{2}$")
    .column("ordered_on", "date", required=True)
    .column("total", "numeric(12,2)", required=True, min=0)
)
revenue = Transformation("revenue", of="orders").aggregate(
    by=["country"], orders="count(*)", revenue="sum(total)"
)

pipeline = Pipeline(
    "simple", team="examples", source=DataSource(ConnectorType.FILES, path="${SIMPLE_DIR}")
).add(orders, revenue)


def main() -> int:
    """Run it once. Returns 0, or 1 when something went wrong."""
    for problem in pipeline.validate():
        print(problem)
    for step in pipeline.plan():
        print(f"plan: {step['table']}: {step['what']} {step['count']} ({step['why']})")
    result = pipeline.run()
    for table in result.tables:
        print(f"{table.table}: {table.rows_added} rows loaded, {table.rows_quarantined} in quarantine")
    for made in result.transforms:
        print(f"{made.table}: {made.rows} rows")
    for problem in result.problems:
        print(problem)
    return 0 if result.success else 1


if __name__ == "__main__":
    raise SystemExit(main())
