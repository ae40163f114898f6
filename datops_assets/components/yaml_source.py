"""YAML with positions: a document as plain values, and where each of them stands.

Belongs here: reading a file, refusing what YAML lets slip (duplicate keys, tags, several
documents), turning a pydantic error into `file:line: what, what was expected`.
Does not: what a document means (document.py).

Nothing is ever executed: no Jinja, no tags, no anchors to other files. A message names
keys, never values, so a secret typed in the wrong place stays unprinted.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from datops_assets.errors import DeclarationError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

Model = TypeVar("Model", bound=BaseModel)

PARTS_ERROR = "contract_parts"
"""An error type of ours: `ctx["problems"]` holds (location below it, sentence) pairs."""

_BARE_VARIABLE = re.compile(r"\{[^\"'#]*\$\{")
"""In a mapping on one line YAML takes the brace of a ${NAME} for one of its own."""
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_DEPTH = 50


@dataclass(frozen=True)
class YamlSource:
    """One parsed file: `values` as plain Python, `node` with the positions."""

    file: str
    values: Any
    node: yaml.Node | None

    def line(self, path: Sequence[str | int]) -> int:
        """The 1-based line of the deepest part of `path` that exists in the file."""
        return self._walk(path)[0]

    def problem(self, path: Sequence[str | int], what: str) -> str:
        """`file:line: key.key: what` for the value at `path`."""
        line, shown = self._walk(path)
        return f"{self.file}:{line}: {shown or 'document'}: {what}"

    def _walk(self, path: Sequence[str | int]) -> tuple[int, str]:
        """Line and dotted name of `path`; parts that pydantic added itself are skipped."""
        node, line, shown = self.node, 1, []
        for index, part in enumerate(path):
            key, child = _child(node, part)
            if child is not None:
                line, node = (key or child).start_mark.line + 1, child
                shown.append(str(part))
            elif index == len(path) - 1 and isinstance(part, str) and not part.startswith("("):
                shown.append(part)  # a missing key is named, at the line of its parent
        return line, ".".join(shown)


def shown_path(path: Path, project_root: Path) -> str:
    """A file as messages name it: below the project's root without it."""
    try:
        return str(path.resolve().relative_to(project_root.resolve()))
    except ValueError:
        return str(path)


def read_yaml(path: Path, shown_as: str | None = None) -> YamlSource:
    """Read one YAML document.

    raises    DeclarationError: unreadable, not UTF-8, not YAML, a duplicate key, a tag,
              more than one document in the file
    """
    file = shown_as or str(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DeclarationError([f"{file}:1: no such file, expected a YAML document"]) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise DeclarationError([f"{file}:1: cannot be read ({reason}), expected a YAML document"]) from None
    return parse_yaml(text, file)


def parse_yaml(text: str, file: str) -> YamlSource:
    """Parse `text` as the one document of `file`. Raises DeclarationError."""
    loader = _Loader(text)
    try:
        _require_shallow(text, file)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise DeclarationError([f"{file}:{_not_yaml(error, text)}"]) from None
    except yaml.YAMLError as error:
        raise DeclarationError([f"{file}:1: not YAML: {type(error).__name__}"]) from None
    finally:
        loader.dispose()
    if node is None:
        return YamlSource(file, None, None)
    values = _Values(file)
    built = values.build(node)
    if values.problems:
        raise DeclarationError(values.problems)
    return YamlSource(file, built, node)


def _require_shallow(text: str, file: str) -> None:
    """Refuse what is nested too deeply before nodes are made of it: libyaml's stack would end the process."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise DeclarationError(
                    [f"{file}:{line}: nested too deeply, expected at most {_MAX_DEPTH} levels"]
                )
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _not_yaml(error: yaml.MarkedYAMLError, text: str) -> str:
    """`line: what, what was expected` for a text that is no YAML."""
    marks = [mark.line for mark in (error.context_mark, error.problem_mark) if mark is not None]
    for number, line in enumerate(text.splitlines(), start=1):
        near = bool(marks) and min(marks) < number <= max(marks) + 1
        if near and _BARE_VARIABLE.search(line):
            return f'{number}: not YAML: ${{NAME}} without quotes between {{ and }}, expected "${{NAME}}"'
    line_number = error.problem_mark or error.context_mark
    return f"{line_number.line + 1 if line_number else 1}: not YAML: {error.problem or error.context}"


def validate(source: YamlSource, model: type[Model]) -> Model:
    """Build `model` from a parsed file; every error at once.

    raises    DeclarationError: one `file:line: what, what was expected` each
    """
    if not isinstance(source.values, dict):
        raise DeclarationError(
            [f"{source.file}:1: the document is not a mapping, expected `key: value` lines"]
        )
    try:
        return model.model_validate(source.values)
    except ValidationError as error:
        raise DeclarationError(problems_of(source, error, model)) from None


def problems_of(source: YamlSource, error: ValidationError, model: type[BaseModel]) -> list[str]:
    """The errors of pydantic as `file:line: key: what`, without any value."""
    found: list[str] = []
    for item in error.errors(include_url=False, include_input=False):
        parts = item.get("ctx", {}).get("problems") if item["type"] == PARTS_ERROR else None
        for where, what in parts or [((), _sentence(item, model))]:
            found.append(source.problem((*item["loc"], *where), what))
    return list(dict.fromkeys(found))


_EXPECTED = {
    "missing": "missing, expected a value",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "string_type": "expected text; put it in quotes",
    "list_type": "expected a list, such as [a, b]",
    "dict_type": "expected a mapping of `key: value` lines",
    "model_type": "expected a mapping of `key: value` lines",
    "date_from_datetime_parsing": "expected a day such as 2026-01-31",
    "string_too_short": "is empty, expected text",
    "too_short": "is empty, expected at least one entry",
}
"""What was expected, by pydantic's name of the error."""


def _sentence(item: ErrorDetails, model: type[BaseModel]) -> str:
    kind = item["type"]
    if kind == "extra_forbidden":
        return _unknown_key(item["loc"], model)
    if kind == "literal_error":
        values = re.findall(r"'([^']*)'", item["ctx"]["expected"])
        return f"expected one of: {', '.join(values)}" if len(values) > 1 else f"expected {values[0]}"
    message = item["msg"].removeprefix("Value error, ")
    return _EXPECTED.get(kind) or message.replace("Input should be", "expected a value", 1)


def _unknown_key(path: Sequence[str | int], model: type[BaseModel]) -> str:
    """The key that was meant, where one is close; else all there are."""
    kinds: list[Any] = [model]
    for part in path[:-1]:
        if len(kinds) > 1:  # pydantic says in `part` which of them it took: the key that marks it
            kinds = [kind for kind in kinds if part in _fields(kind)] or kinds
        else:
            kinds = _below(kinds[0], part) or kinds
    keys = list(dict.fromkeys(field.alias or name for each in kinds for name, field in _fields(each).items()))
    close = difflib.get_close_matches(str(path[-1]), keys, n=1)
    return (
        f"unknown key, did you mean `{close[0]}`?"
        if close
        else f"unknown key, expected one of: {', '.join(keys)}"
    )


def _below(kind: Any, part: str | int) -> list[Any]:
    """The types that may stand under `part` of a value of type `kind`."""
    arguments = get_args(kind)
    fields = [each for name, each in _fields(kind).items() if part in (name, each.alias)]
    if fields:
        return [one for each in fields for one in _alternatives(each.annotation)]
    if arguments and get_origin(kind) is dict:
        return _alternatives(arguments[1])
    return _alternatives(arguments[0]) if arguments and isinstance(part, int) else []


def _fields(kind: Any) -> dict[str, FieldInfo]:
    return kind.model_fields if isinstance(kind, type) and issubclass(kind, BaseModel) else {}


def _alternatives(annotation: Any) -> list[Any]:
    """Every type of a union but None; annotations around it taken off."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [one for part in get_args(annotation) for one in _alternatives(part)]
    return [] if annotation is type(None) else [annotation]


def _child(node: yaml.Node | None, part: str | int) -> tuple[yaml.Node | None, yaml.Node | None]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return key, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return None, node.value[part]
    return None, None


_SCALAR_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float")}
_TEXT_TAGS = {"tag:yaml.org,2002:str", "tag:yaml.org,2002:timestamp"}
_COLLECTION_TAGS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}


class _Values:
    """Turns nodes into values, collecting problems instead of stopping at the first."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[str] = []
        self._scalars = yaml.constructor.SafeConstructor()
        self._seen: set[int] = set()

    def build(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if id(node) in self._seen:
            # An alias lets nine lines stand for a billion values.
            return self._refuse(node, "an alias (*name) is not allowed, expected the value written out")
        self._seen.add(id(node))
        if node.tag not in _COLLECTION_TAGS:
            return self._refuse(node, f"the tag {node.tag} is not allowed, expected a plain value")
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item) for item in node.value]
        result: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._refuse(key, "a key is no text, expected a name; templates ({{ … }}) are not run here")
                continue
            if key.value in result:
                self._refuse(key, f"{key.value}: the key stands twice, expected once")
            result[str(key.value)] = self.build(value)
        return result

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        if "\0" in node.value:
            return self._refuse(node, "a NUL character is not allowed, expected text")
        if node.tag in _TEXT_TAGS:
            return node.value
        if node.tag in _SCALAR_TAGS:
            try:
                return self._scalars.construct_object(node)
            except (ValueError, KeyError):  # !!int over a word, a number of 5,000 digits
                return self._refuse(node, "the value cannot be read, expected text, a number, true or false")
        return self._refuse(node, f"the tag {node.tag} is not allowed, expected a plain value")

    def _refuse(self, node: yaml.Node, what: str) -> None:
        self.problems.append(f"{self.file}:{node.start_mark.line + 1}: {what}")
