"""What is installed is what was tested: data files travel with the package, names lead somewhere."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PACKAGE = PROJECT / "datops_assets"


def _package_data() -> list[str]:
    """The patterns in setup.py, read without running it."""
    for node in ast.walk(ast.parse((PROJECT / "setup.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "package_data":
            return ast.literal_eval(node.value)["datops_assets"]
    raise AssertionError("setup.py has no package_data")


def test_every_data_file_of_the_package_is_in_the_wheel():
    shipped = {file for pattern in _package_data() for file in PACKAGE.glob(pattern)}
    present = {file for file in PACKAGE.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc")}
    assert sorted(str(file.relative_to(PROJECT)) for file in present - shipped) == []


def test_every_folder_with_python_is_a_package():
    """import-linter and mypy see packages only."""
    lost = {file.parent for file in PACKAGE.rglob("*.py")} - {
        file.parent for file in PACKAGE.rglob("__init__.py")
    }
    assert sorted(str(folder.relative_to(PROJECT)) for folder in lost) == []


def test_the_command_and_the_components_are_registered():
    [command] = entry_points(group="console_scripts", name="datops")
    assert callable(command.load())
    [registered] = entry_points(group="dagster_dg_cli.registry_modules", name="datops_assets")
    assert import_module(registered.value).__all__


def test_what_the_package_imports_is_a_dependency_of_its_own():
    """A package that another one happens to bring goes away with it."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    declared = {re.split(r"[\[<>=]", line)[0] for line in [*project["dependencies"], *extras]}
    imported = {name for file in PACKAGE.rglob("*.py") for name in _imports(file)}
    known_as = {"yaml": "pyyaml", "dotenv": "python-dotenv", "dbt": "dbt-core", "psycopg2": "psycopg2-binary"}
    names = {known_as.get(name, name.replace("_", "-")) for name in imported}
    halves_of_declared_ones = {"adbc-driver-manager", "pydantic-core"}
    # datops_assets.testing.plugin is for those who run pytest.
    assert names - declared - halves_of_declared_ones - {"datops-assets", "pytest"} == set()


def _imports(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in found} - sys.stdlib_module_names
