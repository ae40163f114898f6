"""The JSON schema of everything that people write in YAML here, from which an editor completes and underlines.

One schema for all: which document a file is, its first key tells, as it tells `datops validate`.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from datops_assets.components import contract_checks, transform_steps
from datops_assets.components.backups.document import BackupDocument
from datops_assets.components.databases.document import TeamDatabaseDocument
from datops_assets.components.documents import BareDocument
from datops_assets.components.export_document import export_models
from datops_assets.components.sources import document_models
from datops_assets.components.streams.document import StreamDocument

_DECLARATION = {
    "description": "A defs.yaml: which component, and what it is given.",
    "properties": {"type": {"type": "string"}, "attributes": {"type": ["object", "null"]}},
}


def editor_schema() -> dict[str, Any]:
    """A schema (draft 2020-12) of every kind of document, and of the `defs.yaml` that names one.

    Plug-ins that are installed are in it, with their own keys; one that does not load stays out.
    """
    pipelines, exports = document_models(), export_models()
    others: dict[str, type[BaseModel]] = {
        "source_systems": BareDocument,
        "stream": StreamDocument,
        "backup": BackupDocument,
        "database": TeamDatabaseDocument,
    }
    models: list[type[BaseModel]] = [*pipelines.values(), *exports.values(), *others.values()]
    references, parts = models_json_schema([(model, "validation") for model in models])
    transform_steps.add_plugins(parts["$defs"])
    contract_checks.add_plugins(parts["$defs"])

    def refer(model: type[BaseModel]) -> dict[str, Any]:
        return references[model, "validation"]

    by_key = {
        "pipeline": _by_type("source", {name: refer(model) for name, model in pipelines.items()}),
        "export": _by_type("destination", {name: refer(model) for name, model in exports.items()}),
        **{key: refer(model) for key, model in others.items()},
        "type": _DECLARATION,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "datops document",
        "type": "object",
        "anyOf": [{"required": [key]} for key in by_key],
        "allOf": [{"if": {"required": [key]}, "then": then} for key, then in by_key.items()],
        **parts,
    }


def _by_type(part: str, models: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What a document must be by the `type` of one of its parts: so an editor names the key that is wrong."""

    def typed(word: dict[str, Any]) -> dict[str, Any]:
        return {
            "required": [part],
            "properties": {part: {"required": ["type"], "properties": {"type": word}}},
        }

    chosen = [{"if": typed({"const": name}), "then": model} for name, model in models.items()]
    return {**typed({"enum": list(models)}), "allOf": chosen}
