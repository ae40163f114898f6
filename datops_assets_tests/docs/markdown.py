"""Reads the Markdown pages of the project: their links and their code blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]

_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)[^)]*\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block; `info` is what stands behind the backticks: `bash run`, `yaml title=a.yaml`."""

    page: Path
    line: int
    info: str
    text: str

    @property
    def language(self) -> str:
        return self.info.split(" ")[0]

    @property
    def title(self) -> str | None:
        found = re.search(r"\btitle=(\S+)", self.info)
        return found.group(1) if found else None

    @property
    def runs(self) -> bool:
        return self.language == "bash" and "run" in self.info.split(" ")[1:]

    def __str__(self) -> str:
        return f"{self.page.relative_to(PROJECT)}:{self.line}"


def list_pages() -> list[Path]:
    """README.md and its neighbours, docs/ and examples/."""
    folders = [PROJECT / "docs", PROJECT / "examples"]
    return sorted([*PROJECT.glob("*.md"), *(page for folder in folders for page in folder.rglob("*.md"))])


def list_blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found.group(1).strip(), found.group(2))
        for found in _FENCE.finditer(text)
    ]


def list_links(page: Path) -> list[str]:
    return _LINK.findall(_without_blocks(page))


def list_anchors(page: Path) -> set[str]:
    """The anchors that a code host gives to the headings of a page."""
    headings = _HEADING.findall(_without_blocks(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def _without_blocks(page: Path) -> str:
    return _FENCE.sub("", page.read_text(encoding="utf-8"))
