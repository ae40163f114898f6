"""The conditions that a contract may write here by name: those of installed packages."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Any

from datops_assets.components.plugins import PluginError, find_plugin, installed_plugins
from datops_assets.quality import Contract, OwnCheck, OwnCheckRule

__all__ = ["GROUP", "Contract", "add_plugins", "find_check"]

GROUP = "datops.checks"


@cache
def find_check(name: str) -> type[OwnCheck]:
    """The condition that a plug-in brings under this name.

    raises    PluginError: no package has it, it cannot be imported, or it is no condition
    """
    found = find_plugin(GROUP, name)
    if not (isinstance(found, type) and issubclass(found, OwnCheck)) or getattr(found, "word", None) != name:
        raise PluginError(f"the plug-in {name!r} of {GROUP} is no OwnCheck called {name!r}; tell its author")
    return found


def add_plugins(parts: dict[str, Any]) -> None:
    """Add the conditions of plug-ins to the definitions of a JSON schema; those that do not load stay out."""
    rule = parts["OwnCheckRule"]
    known = []
    for plugin in installed_plugins(GROUP):
        with suppress(PluginError):
            schema = find_check(plugin.name).model_json_schema(ref_template="#/$defs/{model}")
            parts.update(schema.pop("$defs", {}))
            named = {"properties": {"check": {"const": plugin.name}}}
            rule.setdefault("allOf", []).append({"if": named, "then": {"properties": {"with": schema}}})
            known.append(plugin.name)
    rule["properties"]["check"]["enum"] = known


def _for_contracts(name: str) -> type[OwnCheck]:
    try:
        return find_check(name)
    except PluginError as error:  # said with the line that names it
        raise ValueError(str(error)) from error


OwnCheckRule.find = staticmethod(_for_contracts)
