"""The ways to tell people that installed packages add to webhooks and Apprise."""

from __future__ import annotations

from functools import cache

from datops_assets.components.plugins import PluginError, find_plugin, installed_plugins
from datops_assets.telemetry.channel import Channel

GROUP = "datops.alerts"


def is_taken(scheme: str) -> bool:
    """Whether addresses that begin so are a webhook's or one of Apprise's."""
    from apprise.manager_plugins import NotificationManager

    known: list[str] = NotificationManager().schemas()  # type: ignore[no-untyped-call]
    return scheme in ("http", "https", *known)


@cache
def _channel_class(scheme: str) -> type[Channel]:
    found = find_plugin(GROUP, scheme)
    if not (isinstance(found, type) and issubclass(found, Channel)) or (
        getattr(found, "scheme", None) != scheme
    ):
        raise PluginError(
            f"the plug-in {scheme!r} of {GROUP} is no Channel called {scheme!r}; tell its author"
        )
    return found


def channel_summary(scheme: str) -> str:
    """One line about a plug-in. Raises PluginError: it cannot be imported, or is no channel."""
    return _channel_class(scheme).summary()


def find_channel(scheme: str) -> Channel | None:
    """The plug-in for addresses that begin so; None where there is none, or the scheme is taken already.

    raises    PluginError: it cannot be imported, or is no channel
    """
    if all(plugin.name != scheme for plugin in installed_plugins(GROUP)) or is_taken(scheme):
        return None
    return _channel_class(scheme)()
