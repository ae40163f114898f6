"""Tables as pages of Markdown: a destination for a wiki's folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from datops_assets.components.destinations import DestinationKind, DestinationSettings, ExportedTable
from datops_assets.components.sources.templates import resolve_path
from datops_assets.components.texts import PathTemplate
from datops_assets.destinations import Delivered, Destination, Rows
from datops_assets.errors import DestinationRefusedError


class MarkdownFolder(DestinationSettings):
    """A folder of pages."""

    type: Literal["markdown"]
    templated = ("path",)
    path: PathTemplate = Field(description="Folder, relative to the project root. ${NAME} is a variable.")

    @property
    def shown(self) -> str:
        """As it is written."""
        return self.path


class ExportedPage(ExportedTable):
    """A table as one page."""

    page: str = Field(pattern=r"^[\w-]+$", description="The page's name; the file is <page>.md.")


@dataclass(frozen=True)
class Page:
    """What the destination is told of one table."""

    name: str
    title: str


class MarkdownKind(DestinationKind[MarkdownFolder, ExportedPage]):
    """Markdown: each table is a page, written whole, then renamed."""

    settings = MarkdownFolder
    table = ExportedPage
    technology = "markdown"
    arrives = "exactly once"

    def open(self, settings: MarkdownFolder, export: str, project_root: Path) -> Destination[Page]:
        """Nothing is opened before something is delivered."""
        return MarkdownPages(resolve_path(settings.path, project_root))

    def target(self, name: str, table: ExportedPage, settings: MarkdownFolder) -> Page:
        """Which page."""
        return Page(table.page, table.description or table.from_)


class MarkdownPages(Destination[Page]):
    """Pages in a folder. The same rows again make the same page, so exactly once needs no marker."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def deliver(self, rows: Rows, target: Page, marker: str) -> Delivered:
        """Write the page beside its place, then rename it: readers find the old one or the new one."""
        place, part = self._folder / f"{target.name}.md", self._folder / f".{target.name}.part"
        count = 0
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with part.open("w", encoding="utf-8") as file:
                file.write(f"# {target.title}\n\n{_line([column.name for column in rows.columns])}")
                file.write(_line(["---"] * len(rows.columns)))
                for batch in rows.batches():  # some thousand rows at a time
                    file.writelines(map(_line, batch))
                    count += len(batch)
                file.flush()
                os.fsync(file.fileno())
            part.replace(place)
        except OSError as error:
            raise DestinationRefusedError(
                f"{place} cannot be written ({error.strerror}); the page that was there is as it was"
            ) from None
        return Delivered(count, str(place))


def _line(cells: Any) -> str:
    texts = ("" if cell is None else str(cell) for cell in cells)
    return f"| {' | '.join(text.replace('|', chr(92) + '|').replace(chr(10), ' ') for text in texts)} |\n"
