"""The documents hold together: links lead somewhere, everything a user can name appears."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from datops_assets.config import Settings
from datops_assets_tests.docs.markdown import PROJECT, list_anchors, list_blocks, list_links, list_pages

PAGES = list_pages()
USER_PAGES = [
    page for page in PAGES if page.name == "README.md" or "docs" in page.parts or "examples" in page.parts
]


def _name(page: Path) -> str:
    return str(page.relative_to(PROJECT))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_relative_link_leads_to_a_file_and_a_heading(page):
    lost = []
    for link in list_links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in list_anchors(target)):
            lost.append(link)
    assert lost == []


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_block_is_closed(page):
    assert page.read_text(encoding="utf-8").count("\n```") % 2 == 0


def test_every_page_is_reached_from_the_readme():
    reached, waiting = set(), [PROJECT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or not page.is_file():
            continue
        reached.add(page)
        if page.suffix == ".md":
            waiting += [
                (page.parent / link.partition("#")[0]).resolve()
                for link in list_links(page)
                if ":" not in link
            ]
    assert sorted(_name(page) for page in USER_PAGES if page not in reached) == []


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """docs/generate.py, which is a script and no part of a package."""
    spec = importlib.util.spec_from_file_location("datops_reference", PROJECT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name", ["cli.md", "pipeline-document.md", "cdc-cases.md", "errors.md", "export-document.md"]
)
def test_a_written_reference_says_what_the_code_says(reference, name):
    """When this fails: `make docs`."""
    page = reference.REFERENCE / name
    assert page.read_text(encoding="utf-8") == reference.PAGES[name]()


def _commands() -> Iterator[str]:
    from typer.main import get_command

    from datops_assets.cli import _app

    waiting = [("datops", get_command(_app()))]
    while waiting:
        name, command = waiting.pop()
        children = getattr(command, "commands", {})
        waiting += [(f"{name} {child}", found) for child, found in children.items() if not found.hidden]
        if not children:
            yield name


def test_every_command_appears_in_a_page_that_a_person_wrote():
    text = " ".join(_prose(page) for page in USER_PAGES)
    assert sorted(name for name in _commands() if name not in text) == []


def test_every_component_appears_in_a_page_that_a_person_wrote():
    from datops_assets import components

    text = " ".join(_prose(page) for page in USER_PAGES)
    names = [name for name in components.__all__ if isinstance(getattr(components, name), type)]
    assert names
    assert sorted(name for name in names if not re.search(rf"`[\w.]*\b{name}`", text)) == []


def test_every_datops_command_shown_exists():
    """The first two words behind `datops` in commands and code of the pages."""
    real = set(_commands())
    known = real | {name.rsplit(" ", 1)[0] for name in real}
    wrong = []
    for page in USER_PAGES:
        for block in list_blocks(page):
            if block.language in ("bash", "sh", "console"):
                wrong += [f"{block}: {call}" for call in _calls(block.text) if not _is_known(call, known)]
    assert wrong == []


def _calls(shell: str) -> list[str]:
    return re.findall(r"^\s*(?:\$ )?(?:\S*/)?(datops(?: [a-z][a-z-]*)*)", shell, re.MULTILINE)


def _is_known(call: str, known: set[str]) -> bool:
    words = call.split()
    return any(" ".join(words[:length]) in known for length in range(2, len(words) + 1)) or words == [
        "datops"
    ]


@pytest.mark.parametrize("key", ["load", "changed_file", "schema"])
def test_every_value_of_a_policy_is_explained(reference, key):
    from datops_assets.components.sources.files import FileTableDocument

    page = reference.describe_document()
    explained = page.partition(f"## What `{key}` means")[2].partition("\n## ")[0]
    for value in FileTableDocument.model_json_schema()["properties"][key]["enum"]:
        assert f"| `{value}` |" in explained


def test_the_reference_has_the_column_types_and_the_short_form(reference):
    from datops_assets.quality.types import print_types

    page = reference.describe_document()
    assert print_types() in page
    assert "source_systems:" in page


def test_every_error_says_what_it_means_and_what_to_do_next():
    from datops_assets import errors

    found = [each for each in vars(errors).values() if isinstance(each, type)]
    classes = [each for each in found if each.__module__ == errors.__name__]
    silent = [each.__name__ for each in classes if "Next:" not in (each.__doc__ or "")]
    assert silent == ["DatopsError"]


def test_env_example_holds_exactly_the_variables_that_are_read():
    described = " ".join(field.description or "" for field in Settings.model_fields.values())
    read = set(re.findall(r"\bDATOPS_[A-Z_]+\b", described)) | {"DATOPS_TEST_WAREHOUSE_URL"}
    example = (PROJECT / ".env.example").read_text(encoding="utf-8")
    assert set(re.findall(r"^# (DATOPS_[A-Z_]+)=", example, re.MULTILINE)) == read
    source = (PROJECT / "datops_assets" / "config" / "settings.py").read_text(encoding="utf-8")
    assert set(re.findall(r'"(DATOPS_[A-Z_]*[A-Z])"', source)) <= read


def test_an_uncommented_env_example_can_be_read(tmp_path):
    from datops_assets.config import read_settings

    example = (PROJECT / ".env.example").read_text(encoding="utf-8")
    (tmp_path / ".env").write_text(
        re.sub(r"^# (DATOPS_)", r"\1", example, flags=re.MULTILINE), encoding="utf-8"
    )
    settings = read_settings(tmp_path)
    assert settings.pg_port == 54329
    assert settings.home == tmp_path / ".datops"


def _prose(page: Path) -> str:
    return "" if page.parent.name == "reference" else " ".join(page.read_text(encoding="utf-8").split())
