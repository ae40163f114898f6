"""${NAME} in a path or a URL of a document: filled in when the source is opened, never before."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from datops_assets.components.texts import VARIABLE
from datops_assets.components.yaml_source import YamlSource
from datops_assets.config.settings import expand
from datops_assets.errors import DeclarationError


def fill_in(template: str) -> str:
    """Put the variables' values in the place of ${NAME}.

    raises    DeclarationError: a variable is not set (its name, never a value)
    """

    def value_of(match: re.Match[str]) -> str:
        value = expand(match.group(1))
        if value is None:
            raise DeclarationError(
                [f"the variable {match.group(1)} is not set; export it or write it into .env"]
            )
        return value

    return VARIABLE.sub(value_of, template)


def resolve_path(template: str, project_root: Path) -> Path:
    """Fill in ${NAME} and make the path absolute, relative to the project root.

    raises    DeclarationError: a variable is not set, or it is no path (its name, never a value)
    """
    try:
        return (project_root / Path(fill_in(template)).expanduser()).resolve()
    except (RuntimeError, ValueError, OSError):  # ~nobody, a loop of links
        raise DeclarationError([f"{template!r} leads nowhere, expected the path of a folder"]) from None


def unset_variables(template: str) -> list[str]:
    """Name the variables of a template that are not set."""
    return [name for name in VARIABLE.findall(template) if expand(name) is None]


def unset_problems(source: YamlSource, where: Sequence[str | int], template: str) -> list[str]:
    """A line for each variable of the template at `where` that is not set."""
    return [
        source.problem(where, f"the variable {name} is not set, expected it in the environment or in .env")
        for name in unset_variables(template)
    ]
