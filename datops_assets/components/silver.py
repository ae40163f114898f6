"""Silver assets: one step a table that judges what is new by the contract.

Belongs here: the translation between Dagster's step and `quality.judge_table`, and what
the asset shows of a judgement. Does not: a verdict (quality).
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg  # annotations stay evaluated here: Dagster reads those of a step

from datops_assets.components.automation import WHEN_BRONZE_CHANGED
from datops_assets.components.bronze import (
    asset_key,
    freshness_policy,
    layer_tags,
    owners_of,
    retry_policy,
    step_name,
)
from datops_assets.components.catalogue import Catalogue, open_catalogue
from datops_assets.components.document import CONTRACT_CHECK, PipelineDocument
from datops_assets.components.failures import failing_as_dagster
from datops_assets.components.partitions import asked_days, daily_partitions, days_in_silver, record_days

if TYPE_CHECKING:
    from datops_assets.quality import CheckResult, Contract, Judgement


def silver_asset(document: PipelineDocument, name: str, *, by_day: bool = True) -> dg.AssetsDefinition:
    """The asset that judges one table and keeps silver what its contract says.

    by_day   with the table's daily partitions, where it has them; False is for the source's own job
    """
    table = document.tables[name]
    contract = table.contract
    assert contract is not None, "a table without a contract has no silver"
    spec = _spec(document, name, contract, by_day)
    key = spec.key

    @dg.multi_asset(
        name=step_name(key.to_python_identifier(), document, by_day),
        specs=[spec],
        check_specs=check_specs(key, contract),
        backfill_policy=dg.BackfillPolicy.single_run() if spec.partitions_def else None,
        retry_policy=retry_policy(document),
        op_tags={"datops/pipeline": document.pipeline},
    )
    def judge(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
        from datops_assets.quality import JudgementBlockedError

        days = asked_days(context, table)
        with failing_as_dagster(), open_catalogue() as catalogue:
            try:
                judgement = judge_documented(
                    catalogue, document, name, run_id=context.run.run_id, partitions=days
                )
            except JudgementBlockedError as blocked:
                # Recorded before the step fails, so that the asset shows what stopped it.
                yield from check_results(key, blocked.judgement, contract)
                raise
            lineage = column_lineage(catalogue, document.pipeline, name, contract, table.rename)
            if table.days is not None:
                record_days(context, key, days, days_in_silver(catalogue, document, name, context.run.run_id))
        yield dg.MaterializeResult(metadata=judgement_metadata(judgement) | lineage)
        yield from check_results(key, judgement, contract)

    return judge


def _spec(document: PipelineDocument, name: str, contract: "Contract", by_day: bool) -> dg.AssetSpec:
    table = document.tables[name]
    version = contract.version(rename=table.rename)
    return dg.AssetSpec(
        asset_key("silver", document.pipeline, name),
        deps=[
            asset_key("bronze", document.pipeline, name),
            *(asset_key("silver", *reference) for reference in document.references(name)),
        ],
        group_name="silver",
        kinds={"postgres", "contract"},
        owners=owners_of(document, table),
        tags={**document.tags, **table.tags, **layer_tags("silver", table)},
        description=table.description or f"{name} of {document.pipeline}, typed, keyed and checked.",
        metadata={
            "dagster/relation_identifier": f"silver.{document.pipeline}_{name}",
            "dagster/column_schema": column_schema(contract),
            "contract_version": version,
        },
        code_version=version,
        partitions_def=daily_partitions(document, table) if by_day else None,
        automation_condition=WHEN_BRONZE_CHANGED,
        freshness_policy=freshness_policy(document, table),
    )


def judge_documented(
    catalogue: Catalogue,
    document: PipelineDocument,
    name: str,
    *,
    run_id: str | None = None,
    partitions: list[str] | None = None,
    rebuild: bool = False,
) -> "Judgement":
    """Judge one table of a document: what is new, some days again, or everything again.

    raises    JudgementBlockedError: a blocking check failed; silver is as it was
    """
    from datops_assets import quality

    table = document.tables[name]
    assert table.contract is not None
    arguments: dict[str, Any] = {
        "source": document.pipeline,
        "table": name,
        "contract": table.contract,
        "rename": table.rename,
        "disposition": table.disposition,
        "run_id": run_id,
    }
    if rebuild:
        return quality.rebuild_table(catalogue.conn, **arguments)
    if partitions is not None:
        return quality.judge_partitions(catalogue.conn, partition_keys=partitions, **arguments)
    return quality.judge_table(catalogue.conn, **arguments)


def check_specs(key: dg.AssetKey, contract: "Contract") -> list[dg.AssetCheckSpec]:
    """One check for all columns together and one for each rule of its own."""
    columns_block = any(column.severity == "block" for column in contract.columns.values())
    specs = [
        dg.AssetCheckSpec(
            CONTRACT_CHECK, asset=key, description="Every column's rules.", blocking=columns_block
        )
    ]
    for rule in contract.rules:
        blocking = rule.severity == "block"
        specs.append(
            dg.AssetCheckSpec(rule.check_name(), asset=key, description=rule.sentence(), blocking=blocking)
        )
    return specs


def check_results(
    key: dg.AssetKey, judgement: "Judgement", contract: "Contract"
) -> Iterator[dg.AssetCheckResult]:
    """What a judgement says to each of `check_specs`."""
    own = [rule.check_name() for rule in contract.rules]
    yield _check_result(key, CONTRACT_CHECK, [check for check in judgement.checks if check.name not in own])
    for name in own:
        yield _check_result(key, name, [check for check in judgement.checks if check.name == name])


def _check_result(key: dg.AssetKey, name: str, checks: list["CheckResult"]) -> dg.AssetCheckResult:
    failed = [check for check in checks if not check.passed]
    worst = any(check.severity != "warn" for check in failed)
    noticed = sorted((check for check in checks if check.rows_failed), key=lambda check: -check.rows_failed)
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=name,
        passed=not failed,
        severity=dg.AssetCheckSeverity.ERROR if worst or not failed else dg.AssetCheckSeverity.WARN,
        description="; ".join(
            f"{check.name}: {check.said or f'{check.rows_failed} of {check.rows_judged} rows'}"
            for check in noticed[:10]
        )
        or "no row fails",
        metadata={
            "rows_failed": sum(check.rows_failed for check in checks),
            "expectations": dg.MetadataValue.md(_table(noticed)) if noticed else "all hold",
        },
    )


def _table(checks: list["CheckResult"]) -> str:
    lines = [
        "| expectation | severity | rows judged | rows failed | within its threshold |",
        "| --- | --- | --: | --: | --- |",
    ]
    for check in checks:
        kept = "yes" if check.passed else "no"
        lines.append(
            f"| {check.name} | {check.severity} | {check.rows_judged} | {check.rows_failed} | {kept} |"
        )
    return "\n".join(lines)


def judgement_metadata(judgement: "Judgement") -> dict[str, Any]:
    """What a judgement did, as the asset shows it."""
    metadata: dict[str, Any] = {
        "dagster/row_count": judgement.rows_total,
        "rows_judged": judgement.rows_judged,
        "rows_passed": judgement.rows_passed,
        "rows_quarantined": judgement.rows_quarantined,
        "rows_inserted": judgement.rows_inserted,
        "rows_updated": judgement.rows_updated,
        "rows_deleted": judgement.rows_deleted,
        "judged": judgement.kind,
    }
    if judgement.score is not None:
        metadata["quality_score"] = judgement.score
    return metadata


def column_schema(contract: "Contract") -> dg.TableSchema:
    """The contract's columns."""
    return dg.TableSchema(
        [
            dg.TableColumn(
                column.name,
                type=column.type,
                description=column.description,
                constraints=dg.TableColumnConstraints(nullable=column.nullable),
            )
            for column in contract.column_schema()
        ]
    )


def column_lineage(
    catalogue: Catalogue, source: str, name: str, contract: "Contract", rename: Mapping[str, str]
) -> dict[str, Any]:
    """Which bronze columns each silver column is made of, by the names delivered so far."""
    from datops_assets import quality

    bronze = asset_key("bronze", source, name)
    made_of = quality.column_origins(catalogue.conn, source, name, contract, rename)
    lineage = dg.TableColumnLineage(
        {
            column: [dg.TableColumnDep(asset_key=bronze, column_name=origin) for origin in origins]
            for column, origins in made_of.items()
        }
    )
    return {"dagster/column_lineage": lineage}
