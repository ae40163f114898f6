"""The export document: one YAML file a destination, many tables of gold and silver that go there."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field, create_model

from datops_assets.components.destinations import (
    BUILT_IN,
    DestinationSettings,
    ExportedTable,
    destination_kind,
    destination_kinds,
)
from datops_assets.components.document import Part, Retries
from datops_assets.components.plugins import PluginError
from datops_assets.components.sources.templates import unset_variables
from datops_assets.components.texts import Cron, Owner, Pool, TableName, Tags
from datops_assets.components.yaml_source import YamlSource, read_yaml, validate
from datops_assets.errors import DeclarationError


class ExportDocument(Part):
    """One destination, and the tables that go there."""

    export: TableName = Field(description="Name; second part of every asset's key: `export/<name>/<table>`.")
    team: str = Field(min_length=1, description="Who answers for it.")
    description: str | None = None
    owners: list[Owner] = Field(default_factory=list)
    tags: Tags = Field(default_factory=dict)
    schedule: Cron | None = Field(
        None, description="Cron line (UTC). Without one it runs when its tables change."
    )
    pool: Pool | None = Field(None, description="Dagster pool of the deliveries; default destination_<name>.")
    retries: Retries = Retries()
    destination: DestinationSettings
    tables: dict[TableName, ExportedTable] = Field(min_length=1)


@cache
def export_model(name: str) -> type[ExportDocument]:
    """The model of a document whose destination is of one kind. Raises PluginError."""
    kind = destination_kind(name)
    return create_model(
        f"{name.title()}ExportDocument",
        __base__=ExportDocument,
        __doc__=ExportDocument.__doc__,
        destination=(kind.settings, ...),
        tables=(dict[TableName, kind.table], Field(min_length=1)),  # type: ignore[name-defined]
    )


def export_models() -> dict[str, type[ExportDocument]]:
    """The model of an export document by each kind of destination that can be loaded here."""
    models = {}
    for name in destination_kinds():
        with suppress(PluginError):  # one that does not load is named by `datops plugins list`
            models[name] = export_model(name)
    return models


def read_export(path: Path, shown_as: str | None = None) -> ExportDocument:
    """Read one export document.

    raises    DeclarationError: every problem of the file, as `file:line: what, what was expected`
    """
    source = read_yaml(path, shown_as)
    document = validate(source, _model_of(source))
    problems = [
        source.problem(
            ("destination", key), f"the variable {name} is not set, expected it in the environment or in .env"
        )
        for key in document.destination.templated
        for name in unset_variables(getattr(document.destination, key))
    ]
    if problems:
        raise DeclarationError(problems)
    return document


def _model_of(source: YamlSource) -> type[ExportDocument]:
    part: Any = source.values.get("destination") if isinstance(source.values, dict) else None
    name = part.get("type") if isinstance(part, dict) else None
    if not isinstance(name, str):
        return export_model(next(iter(BUILT_IN)))  # which says what is missing
    where = ["destination", "type"]
    if name not in (known := destination_kinds()):
        said = f"there is no destination of this type, expected one of: {', '.join(known)}"
        raise DeclarationError(
            [source.problem(where, f"{said} (a plug-in brings more: `datops plugins list`)")]
        )
    try:
        return export_model(name)
    except PluginError as error:
        raise DeclarationError([source.problem(where, str(error))]) from error
