"""A way to tell people that another package brings: for addresses that begin with its name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from datops_assets.telemetry.alerts import Message


class Channel(ABC):
    """Takes messages for addresses `<scheme>://…`. One is made for each message."""

    scheme: ClassVar[str]
    """What an address begins with."""

    @abstractmethod
    def send(self, address: str, message: Message) -> None:
        """Bring one message there; a few seconds at most, for a sensor waits.

        address    the whole of it, which is a secret: it stands in no error
        message    `title`, `lines`, `severity`, `resolved`; secrets in it are blanked already
        raises     RetryableError: tried again, three times in all. Any other error: it is not sent
                   now, and tried again with the next tick of the route
        """

    @classmethod
    def summary(cls) -> str:
        """One line for lists: the first of the class's docstring."""
        return (cls.__doc__ or cls.scheme).strip().splitlines()[0]
