"""Plug-ins: what other installed packages add, found by their entry points.

One mechanism for every group; a package that cannot be imported is named and stops nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from datops_assets.errors import TerminalError

GROUPS = {
    "datops.sources": "kinds of sources: `source: {type: …}`",
}
"""Entry point groups, and what a plug-in in it adds."""


class PluginError(TerminalError):
    """No installed package has the plug-in, or its package cannot be imported."""


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
