"""The steps a document may write here: those of datops, and those of installed packages."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Any

from pydantic import BaseModel

from datops_assets.components.plugins import PluginError, find_plugin, installed_plugins
from datops_assets.transform import BUILT_IN, Step, StepDocument

__all__ = ["GROUP", "StepDocument", "add_plugins", "find_step", "step_names"]

GROUP = "datops.transforms"


def step_names() -> list[str]:
    """Every key that a step may have, those of plug-ins last."""
    own = [step.word for step in BUILT_IN]
    return [*own, *(plugin.name for plugin in installed_plugins(GROUP) if plugin.name not in own)]


@cache
def find_step(word: str) -> type[Step] | None:
    """The step that a plug-in brings under this name; None where no package has it.

    raises    PluginError: its package cannot be imported, or it is no step
    """
    if all(plugin.name != word for plugin in installed_plugins(GROUP)):
        return None
    found = find_plugin(GROUP, word)
    if not (isinstance(found, type) and issubclass(found, Step) and issubclass(found, BaseModel)) or (
        getattr(found, "word", None) != word
    ):
        raise PluginError(f"the plug-in {word!r} of {GROUP} is no Step called {word!r}; tell its author")
    return found


def add_plugins(parts: dict[str, Any]) -> None:
    """Add the steps of plug-ins to the definitions of a JSON schema; those that do not load stay out."""
    fields = parts["StepDocument"]["properties"]
    parts["StepDocument"]["additionalProperties"] = False
    for plugin in installed_plugins(GROUP):
        if plugin.name in fields:
            continue
        with suppress(PluginError):
            step: Any = find_step(plugin.name)
            schema = step.model_json_schema(ref_template="#/$defs/{model}")
            parts.update(schema.pop("$defs", {}))
            fields[plugin.name] = schema


def _for_documents(word: str) -> type[Step] | None:
    try:
        return find_step(word)
    except PluginError as error:  # said with the line that names it
        raise ValueError(str(error)) from error


StepDocument.find = staticmethod(_for_documents)
