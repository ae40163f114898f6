"""What dagster-dbt makes of a project: assets, dependencies and checks, kept as JSON.

Importing dagster_dbt and dbt costs 1.7 CPU seconds and choosing nodes some more, in every
process that loads the definitions. So dagster-dbt translates a project once, when its
files changed (`translate`), and loading reads the outcome (`read_graph`). This module
imports neither before `translate` is called.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict


class Column(BaseModel):
    """A column as the project describes it."""

    model_config = ConfigDict(frozen=True)

    name: str
    type: str
    description: str | None


class Model(BaseModel):
    """One relation that dbt makes: a model or a snapshot."""

    model_config = ConfigDict(frozen=True)

    unique_id: str
    selector: str
    key: tuple[str, ...]
    deps: tuple[tuple[str, ...], ...]
    relation: str
    materialized: str
    description: str | None
    columns: tuple[Column, ...]
    owners: tuple[str, ...]
    tags: dict[str, str]
    code_version: str | None


class Check(BaseModel):
    """One dbt test."""

    model_config = ConfigDict(frozen=True)

    unique_id: str
    selector: str
    name: str
    model: tuple[str, ...]
    additional_deps: tuple[tuple[str, ...], ...]
    description: str | None
    blocking: bool


class Graph(BaseModel):
    """All that loading the definitions needs to know about a project."""

    model_config = ConfigDict(frozen=True)

    models: tuple[Model, ...]
    checks: tuple[Check, ...]


def read_graph(path: Path) -> Graph:
    """Read what `translate` gave when the project was prepared."""
    return Graph.model_validate_json(path.read_bytes())


def translate(manifest: Mapping[str, Any], select: str, exclude: str) -> Graph:
    """Have dagster-dbt translate the selected part of a manifest. Imports dbt: seconds of CPU."""
    from dagster_dbt import build_dbt_asset_specs

    from datops_assets.components.gold.translator import GoldTranslator

    translator = GoldTranslator()
    specs = build_dbt_asset_specs(
        manifest=manifest, dagster_dbt_translator=translator, select=select, exclude=exclude
    )
    models, checks = [], {}
    for spec in sorted(specs, key=lambda spec: tuple(spec.key.path)):
        unique_id = spec.metadata["dagster_dbt/unique_id"]
        models.append(_model(spec, manifest["nodes"][unique_id]))
        for test_id in _tests_of(manifest, unique_id):
            check = translator.get_asset_check_spec(spec, manifest, test_id, None)
            if check is not None:
                checks[test_id] = _check(check, manifest["nodes"][test_id])
    return Graph(models=tuple(models), checks=tuple(checks[test_id] for test_id in sorted(checks)))


def write_graph(graph: Graph, path: Path) -> None:
    """Write what `read_graph` reads."""
    path.write_text(json.dumps(graph.model_dump(mode="json"), indent=1), encoding="utf-8")


def _tests_of(manifest: Mapping[str, Any], unique_id: str) -> Iterable[str]:
    return (child for child in manifest["child_map"].get(unique_id, ()) if child.startswith("test."))


def _selector(node: Mapping[str, Any]) -> str:
    return "fqn:" + ".".join(node["fqn"])


def _model(spec: Any, node: Mapping[str, Any]) -> Model:
    columns = node.get("columns", {}).values()
    return Model(
        unique_id=node["unique_id"],
        selector=_selector(node),
        key=tuple(spec.key.path),
        deps=tuple(sorted(tuple(dep.asset_key.path) for dep in spec.deps)),
        relation=f"{node['schema']}.{node['alias']}",
        materialized=node["config"]["materialized"],
        description=spec.description,
        columns=tuple(
            Column(name=c["name"], type=c.get("data_type") or "?", description=c.get("description"))
            for c in columns
        ),
        owners=tuple(spec.owners or ()),
        tags=dict(spec.tags),
        code_version=spec.code_version,
    )


def _check(spec: Any, node: Mapping[str, Any]) -> Check:
    return Check(
        unique_id=node["unique_id"],
        selector=_selector(node),
        name=spec.name,
        model=tuple(spec.asset_key.path),
        additional_deps=tuple(sorted(tuple(dep.asset_key.path) for dep in spec.additional_deps)),
        description=spec.description or node.get("description") or None,
        blocking=spec.blocking,
    )
