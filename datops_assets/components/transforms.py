"""Transformation assets: one step a table that runs its statement in the warehouse.

Belongs here: the translation between Dagster's step and `transform.build_table`, and what the
asset shows of it. Does not: what a statement says (transform).
"""

from typing import TYPE_CHECKING, Any

import dagster as dg  # annotations stay evaluated here: Dagster reads those of a step

from datops_assets.components.automation import when_inputs_changed
from datops_assets.components.bronze import (
    asset_key,
    freshness_policy,
    owners_of,
    retry_policy,
    step_name,
)
from datops_assets.components.catalogue import Catalogue, open_catalogue
from datops_assets.components.document import PipelineDocument
from datops_assets.components.failures import failing_as_dagster
from datops_assets.components.transform_statements import (
    columns_here,
    declared_version,
    references,
    statement_here,
)

if TYPE_CHECKING:
    from datops_assets.transform import Built, Statement


def transform_asset(document: PipelineDocument, name: str, *, by_day: bool = True) -> dg.AssetsDefinition:
    """The asset that builds one transformation's table.

    by_day   False is for the source's own job, whose steps are others where tables have days
    """
    transform = document.transforms[name]
    key = asset_key("silver", document.pipeline, name)
    spec = dg.AssetSpec(
        key,
        deps=[asset_key("silver", *reference) for reference in references(document, name).values()],
        group_name="silver",
        kinds={"postgres", "python" if any(step.word == "python" for step in transform.steps) else "sql"},
        owners=owners_of(document, transform),
        tags={**document.tags, **transform.tags, "layer": "silver"},
        description=transform.description or f"{name} of {document.pipeline}, made of {transform.from_}.",
        metadata={
            "dagster/relation_identifier": f"silver.{document.pipeline}_{name}",
            "steps": ", ".join(step.word for step in transform.steps),
        },
        code_version=declared_version(document, name),
        automation_condition=when_inputs_changed(document.pipeline),
        freshness_policy=freshness_policy(document, transform),
    )

    @dg.multi_asset(
        name=step_name(key.to_python_identifier(), document, by_day),
        specs=[spec],
        retry_policy=retry_policy(document),
        op_tags={"datops/pipeline": document.pipeline},
    )
    def build(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        with failing_as_dagster(), open_catalogue() as catalogue:
            statement, built = build_transform(catalogue, document, name, run_id=context.run.run_id)
            lineage = _column_lineage(catalogue, document, name, statement)
        return dg.MaterializeResult(metadata=_metadata(statement, built) | lineage)

    return build


def build_transform(
    catalogue: Catalogue, document: PipelineDocument, name: str, *, run_id: str | None = None
) -> tuple["Statement", "Built"]:
    """Build one transformation's table from what its inputs hold now.

    raises    TransformError: it cannot be built; the table is as it was
    """
    from datops_assets.quality.swap import swap_in
    from datops_assets.transform import StepError, TransformError, build_table

    try:
        statement = statement_here(catalogue.conn, document, name)
    except StepError as error:
        where = ".".join(map(str, error.where))
        raise TransformError(f"{document.pipeline}.{name}: {where}: {error}") from None
    built = build_table(
        catalogue.conn,
        document.pipeline,
        name,
        statement,
        version=declared_version(document, name),
        swap=swap_in,
        run_id=run_id,
    )
    return statement, built


def _metadata(statement: "Statement", built: "Built") -> dict[str, Any]:
    return {
        "dagster/row_count": built.rows,
        "dagster/column_schema": dg.TableSchema(
            [dg.TableColumn(name, type=kind or "?") for name, kind in built.columns.items()]
        ),
        "statement": dg.MetadataValue.md(f"```sql\n{statement.text(pretty=True)}\n```"),
        "seconds": round(built.seconds, 3),
    }


def _column_lineage(
    catalogue: Catalogue, document: PipelineDocument, name: str, statement: "Statement"
) -> dict[str, Any]:
    from datops_assets.transform import column_lineage, silver_table

    inputs = references(document, name)
    columns = columns_here(catalogue.conn, document, name)
    tables = {word: silver_table(*reference, columns[word]) for word, reference in inputs.items()}
    found = column_lineage(statement, tables)
    if not found:
        return {}
    return {
        "dagster/column_lineage": dg.TableColumnLineage(
            {
                column: [
                    dg.TableColumnDep(asset_key=asset_key("silver", *inputs[word]), column_name=origin)
                    for word, origin in origins
                ]
                for column, origins in found.items()
            }
        )
    }
