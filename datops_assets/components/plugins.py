"""Plug-ins: what other installed packages add, found by their entry points.

One mechanism for every group; a package that cannot be imported is named and stops nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from datops_assets.errors import TerminalError

GROUPS = {
    "datops.alerts": "places to tell people: addresses `<name>://…` of an alert route",
    "datops.checks": "conditions over one row of a contract: `rules: [{check: name, with: {…}}]`",
    "datops.sources": "kinds of sources: `source: {type: …}`",
    "datops.destinations": "kinds of destinations: `destination: {type: …}` of an export",
    "datops.transforms": "steps of transformations: `transforms: {…: {steps: [{name: …}]}}`",
}
"""Entry point groups, and what a plug-in in it adds."""


class PluginError(TerminalError):
    """No installed package has the plug-in, or its package cannot be imported.

    Next: `datops plugins list` says which package it is and why; install it again, or another version
    of it.
    """


@dataclass(frozen=True)
class Plugin:
    """One entry point of an installed package."""

    group: str
    name: str
    entry: EntryPoint

    @property
    def package(self) -> str:
        """The distribution it comes from, with its version."""
        return (
            f"{self.entry.dist.name} {self.entry.dist.version}" if self.entry.dist else "an unknown package"
        )

    def load(self) -> Any:
        """Import what it stands for.

        raises    PluginError: the package cannot be imported; the cause is chained
        """
        try:
            return self.entry.load()
        except Exception as error:  # whatever a stranger's module raises when it is imported
            raise PluginError(
                f"the plug-in {self.name!r} of {self.package} cannot be imported ({type(error).__name__}: {error});"
                f" install {self.package} again, or remove it"
            ) from error


@dataclass(frozen=True)
class ListedPlugin:
    """A plug-in as `datops plugins list` shows it; `problem` says why it cannot be used."""

    group: str
    name: str
    package: str
    summary: str = ""
    problem: str | None = None


def list_plugins() -> list[ListedPlugin]:
    """Every plug-in of every group, each imported once; one that cannot be stops none of the others."""
    found = []
    for group, check in _CHECKS.items():
        for plugin in installed_plugins(group):
            listed = ListedPlugin(group, plugin.name, plugin.package)
            try:
                listed = replace(listed, summary=check(plugin.name))
            except PluginError as error:
                listed = replace(listed, problem=str(error))
            found.append(listed)
    return found


def _check_source(name: str) -> str:
    from datops_assets.components.sources import BUILT_IN, source_kind

    if name in BUILT_IN:
        raise PluginError(f"datops has a source of the name {name!r} itself; ask its author for another name")
    return source_kind(name).summary()


def _check_transform(name: str) -> str:
    from datops_assets.components.transform_steps import find_step
    from datops_assets.transform import BUILT_IN

    if any(step.word == name for step in BUILT_IN):
        raise PluginError(f"datops has a step of the name {name!r} itself; ask its author for another name")
    step = find_step(name)
    assert step is not None, "it is among the installed ones"
    return step.summary()


def _check_destination(name: str) -> str:
    from datops_assets.components.destinations import BUILT_IN, destination_kind

    if name in BUILT_IN:
        raise PluginError(f"datops has a destination of the name {name!r} itself; ask its author for another")
    return destination_kind(name).summary()


def _check_check(name: str) -> str:
    from datops_assets.components.contract_checks import find_check

    return find_check(name).summary()


def _check_alert(name: str) -> str:
    from datops_assets.components.alert_channels import channel_summary, is_taken

    if is_taken(name):
        raise PluginError(f"{name}:// is an address that is known already; ask its author for another name")
    return channel_summary(name)


_CHECKS: dict[str, Callable[[str], str]] = {
    "datops.alerts": _check_alert,
    "datops.checks": _check_check,
    "datops.destinations": _check_destination,
    "datops.sources": _check_source,
    "datops.transforms": _check_transform,
}
"""Of each group: tries a plug-in as a document would, and says in a line what it is."""


@cache
def installed_plugins(group: str) -> tuple[Plugin, ...]:
    """Every plug-in of a group, by name; imports none of them."""
    found = [Plugin(group, entry.name, entry) for entry in entry_points(group=group)]
    return tuple(sorted(found, key=lambda plugin: (plugin.name, plugin.package)))


def find_plugin(group: str, name: str) -> Any:
    """Import the plug-in of that name.

    raises    PluginError: there is none, or it cannot be imported
    """
    for plugin in installed_plugins(group):
        if plugin.name == name:
            return plugin.load()
    known = ", ".join(plugin.name for plugin in installed_plugins(group)) or "none"
    raise PluginError(
        f"there is no plug-in {name!r} in {group}, installed: {known} (see `datops plugins list`)"
    )
