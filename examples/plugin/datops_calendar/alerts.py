"""A place to tell people: a log book, which is a file that lines are added to."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from datops_assets.errors import RetryableError
from datops_assets.telemetry.alerts import Message
from datops_assets.telemetry.channel import Channel


class Logbook(Channel):
    """A file on this machine, for addresses such as logbook:///var/log/alerts.txt."""

    scheme: ClassVar[str] = "logbook"

    def send(self, address: str, message: Message) -> None:
        """Add the message's lines."""
        try:
            with Path(address.removeprefix("logbook://")).open("a", encoding="utf-8") as book:
                book.writelines(f"{line}\n" for line in (message.title, *message.lines))
        except OSError as error:  # its text would hold the address, so it goes no further
            raise RetryableError(f"the log book cannot be written ({error.strerror})") from None
