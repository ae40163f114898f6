"""Kinds of sources: files, databases, APIs, and what installed packages add.

The names are looked up when they are asked for, so that a command without a source imports none.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datops_assets.components.plugins import PluginError, find_plugin, installed_plugins
from datops_assets.components.sources.kind import SourceKind

if TYPE_CHECKING:
    from datops_assets.components.document import PipelineDocument
    from datops_assets.ingestion import Source, SourceTable

GROUP = "datops.sources"
BUILT_IN = {"files": "files:FilesKind", "database": "database:DatabaseKind", "rest": "rest:RestKind"}
"""Kinds that come with datops; a plug-in cannot take their names."""


def source_kinds() -> list[str]:
    """Every name that `source: {type: …}` may have here, those of plug-ins last."""
    return [*BUILT_IN, *(plugin.name for plugin in installed_plugins(GROUP) if plugin.name not in BUILT_IN)]


@cache
def source_kind(name: str) -> SourceKind[Any, Any]:
    """The kind of that name.

    raises    PluginError: no installed package has it, or its package cannot be imported
    """
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        found = getattr(import_module(f"{__name__}.{module}"), attribute)
    else:
        found = find_plugin(GROUP, name)
    if not (isinstance(found, type) and issubclass(found, SourceKind) and found.name() == name):
        raise PluginError(
            f"the plug-in {name!r} of {GROUP} is no SourceKind called {name!r}; tell its author"
        )
    return found()


def kind_of(document: PipelineDocument) -> SourceKind[Any, Any]:
    """The kind of a document's source."""
    return source_kind(document.source.type)


@cache
def document_model(name: str) -> type[PipelineDocument]:
    """The model of a document whose source is of one kind. Raises PluginError."""
    return source_kind(name).document()


def document_models() -> dict[str, type[PipelineDocument]]:
    """The model of a pipeline document by each kind of source that can be loaded here."""
    models = {}
    for name in source_kinds():
        with suppress(PluginError):  # one that does not load is named by `datops plugins list`
            models[name] = document_model(name)
    return models


def declared_table(document: PipelineDocument, name: str, project_root: Path) -> SourceTable:
    """What ingestion needs to know of one table.

    raises    DeclarationError: a variable is not set
    """
    declared = kind_of(document).declare(document, name, project_root)
    table = document.tables[name]
    return replace(declared, schema_policy=table.schema_policy, allow_empty=table.allow_empty)


def open_source(document: PipelineDocument, project_root: Path) -> Source[Any]:
    """The source of a document's tables; a context manager.

    raises    DeclarationError: a variable is not set
    """
    return kind_of(document).open(document, project_root)
