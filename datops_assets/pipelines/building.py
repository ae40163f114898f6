"""A document built in Python: values as the YAML has them, and nothing else.

Belongs here: putting values together, and going to YAML and back. Does not: what a value may be;
the document's own model says that, with the line of the YAML that the values make.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import yaml

from datops_assets.components.yaml_source import parse_yaml, read_yaml
from datops_assets.config.settings import find_project_root
from datops_assets.errors import DeclarationError
from datops_assets.pipelines.running import Execution, ExecutionContext, run_elsewhere, start

if TYPE_CHECKING:
    from datops_assets.components.document import PipelineDocument
    from datops_assets.components.documents import LoadedDocument
    from datops_assets.components.plans import Row
    from datops_assets.components.runner import PipelineRun

Values = dict[str, Any]


class _Part:
    """A part of a document; equal where the values are."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values: Values = _plain(values)

    @property
    def values(self) -> Values:
        """As the YAML has it; a copy."""
        return copy.deepcopy(self._values)

    def set(self, **keys: Any) -> Self:
        """Set any keys of this part, as the reference of the document names them."""
        self._values.update(_plain(keys))
        return self

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._values!r})"


class DataSource(_Part):
    """Where the rows come from: `DataSource(ConnectorType.DATABASE, url="…", password_env="SHOP_PASSWORD")`."""

    def __init__(self, type: str, **keys: Any) -> None:  # noqa: A002 - the document's word
        super().__init__({"type": type, **keys})

    @property
    def type(self) -> str:
        """The kind of source."""
        return str(self._values["type"])


class Task(_Part):
    """One table: its load into bronze, and its judgement by a contract where it has one."""

    def __init__(self, name: str, **keys: Any) -> None:
        super().__init__(keys)
        self.name = name

    def column(self, name: str, type: str, **rules: Any) -> Self:  # noqa: A002 - the document's word
        """Add a column to the contract. `in_` stands for `in`, `from_` for `from`."""
        written = {word.removesuffix("_"): value for word, value in rules.items()}
        self._contract().setdefault("columns", {})[name] = _plain({"type": type, **written})
        return self

    def key(self, *columns: str) -> Self:
        """Say which columns name one row."""
        self._contract()["key"] = list(columns)
        return self

    def rule(self, **rule: Any) -> Self:
        """Add a rule over columns or rows, e.g. `rule(unique=["sku"])`."""
        self._contract().setdefault("rules", []).append(_plain(rule))
        return self

    def _contract(self) -> Values:
        contract: Values = self._values.setdefault("contract", {})
        return contract


class Transformation(_Part):
    """One table made of others. Each method adds a step; a step sees the rows of the one before."""

    def __init__(self, name: str, *, of: str, **keys: Any) -> None:
        super().__init__({"from": of, "steps": [], **keys})
        self.name = name

    def step(self, word: str, parameters: Any = None, **named: Any) -> Self:
        """Add any step, a plug-in's too: `step("drop", ["a"])`, `step("pivot", by=["day"], …)`."""
        self._values["steps"].append({word: _plain(named if parameters is None else parameters)})
        return self

    def select(self, *columns: str) -> Self:
        """Only these columns, in this order."""
        return self.step("select", list(columns))

    def filter(self, condition: str) -> Self:
        """Only the rows for which a condition is true."""
        return self.step("filter", condition)

    def rename(self, **names: str) -> Self:
        """Other names: `rename(old="new")`."""
        return self.step("rename", names)

    def cast(self, **types: str) -> Self:
        """Other types."""
        return self.step("cast", types)

    def derive(self, **expressions: str) -> Self:
        """New columns, or new values of columns."""
        return self.step("derive", expressions)

    def mask(self, **how: Any) -> Self:
        """Values that nobody should read."""
        return self.step("mask", how)

    def aggregate(self, by: Sequence[str] = (), **columns: str) -> Self:
        """One row of each group."""
        return self.step("aggregate", by=list(by), columns=columns)

    def join(self, table: str, on: Sequence[str] | Mapping[str, str], **more: Any) -> Self:
        """Rows beside the rows of another table that match."""
        return self.step("join", table=table, on=on, **more)

    def lookup(self, table: str, on: Sequence[str] | Mapping[str, str], columns: Any) -> Self:
        """Columns of the one row of another table that matches."""
        return self.step("lookup", table=table, on=on, columns=columns)

    def sql(self, select: str, **tables: str) -> Self:
        """A select of your own."""
        return self.step("sql", select=select, **({"tables": tables} if tables else {}))


class Pipeline(_Part):
    """One source system and its tables: the document, built step by step.

    name, team   as in the YAML, like every key in `keys` (`schedule`, `tags`, `owners`, `retries`, …)
    """

    def __init__(self, name: str, *, team: str, source: DataSource | None = None, **keys: Any) -> None:
        super().__init__({"pipeline": name, "team": team, **keys})
        self._file: Path | None = None
        """The YAML that it was read from, as long as nothing was changed since."""
        if source is not None:
            self.read_from(source)

    @property
    def name(self) -> str:
        """Name of the source system."""
        return str(self._values["pipeline"])

    def set(self, **keys: Any) -> Self:
        """Set any keys of the document."""
        self._file = None
        return super().set(**keys)

    def read_from(self, source: DataSource) -> Self:
        """Say where the rows come from."""
        return self.set(source=source.values)

    def add(self, *parts: Task | Transformation) -> Self:
        """Add tables and transformations; one of a name that is there takes its place."""
        self._file = None
        for part in parts:
            kind = "tables" if isinstance(part, Task) else "transforms"
            self._values.setdefault(kind, {})[part.name] = part.values
        return self

    @property
    def source(self) -> DataSource | None:
        """Where the rows come from; a copy."""
        return DataSource(**self.values["source"]) if "source" in self._values else None

    @property
    def tasks(self) -> list[Task]:
        """Its tables; copies."""
        return [Task(name, **values) for name, values in self.values.get("tables", {}).items()]

    @property
    def transformations(self) -> list[Transformation]:
        """Its transformations; copies."""
        found = []
        for name, values in self.values.get("transforms", {}).items():
            of = values.pop("from")
            found.append(Transformation(name, of=of, **values))
        return found

    @classmethod
    def from_yaml(cls, path: Path | str) -> Pipeline:
        """Read a pipeline document.

        raises    DeclarationError: it is no YAML, or no document in the full form
        """
        source = read_yaml(Path(path))
        if not isinstance(source.values, dict) or not {"pipeline", "team"} <= source.values.keys():
            raise DeclarationError(
                [f"{path}:1: not a pipeline document, expected one with `pipeline:` and `team:`"]
            )
        made = cls(source.values["pipeline"], team=source.values["team"])
        made._values = dict(source.values)
        made._file = Path(path).resolve()
        return made

    def to_yaml(self) -> str:
        """The document as YAML: read again, it makes an equal pipeline."""
        return yaml.safe_dump(self._values, sort_keys=False, allow_unicode=True, width=110)

    @property
    def document(self) -> PipelineDocument:
        """The checked document.

        raises    DeclarationError: every problem of it, with the line of the YAML that it makes
        """
        return self._loaded().document

    def validate(self, context: ExecutionContext | None = None) -> list[str]:
        """What is wrong with it, alone and beside the project's documents; none where nothing is."""
        from datops_assets.components.declarations import check_aside, read_declared
        from datops_assets.components.documents import check_together

        try:
            loaded = self._loaded()
        except DeclarationError as error:
            return error.problems
        root = _root(context)
        declared = read_declared(root)
        beside = [other for other in declared.documents if other.document.pipeline != self.name]
        own = check_together([loaded, *beside], declared.streams)
        own = [problem for problem in own if problem.startswith(f"{loaded.source.file}:")]
        return own + check_aside(root, [loaded], [self._file] if self._file else [])

    def plan(self, context: ExecutionContext | None = None) -> list[Row]:
        """A row for each thing that a run would do; writes nothing. Raises DeclarationError."""
        from datops_assets.components.catalogue import open_catalogue
        from datops_assets.components.plans import plan_pipeline

        document = self._checked(context)
        with open_catalogue(_root(context)) as catalogue:
            return plan_pipeline(catalogue, document)

    def status(self, context: ExecutionContext | None = None) -> list[Row]:
        """A row for each table: last load, rows, quarantine, score, state. Raises DeclarationError."""
        from datops_assets.components.catalogue import open_catalogue
        from datops_assets.components.plans import pipeline_status

        document = self._checked(context)
        with open_catalogue(_root(context)) as catalogue:
            return pipeline_status(catalogue, document)

    def run(self, context: ExecutionContext | None = None) -> PipelineRun:
        """Load what is new, judge it, build what is made of it; in this process, to the end.

        raises    DeclarationError: the document is wrong. What goes wrong in a step is in the result
        """
        from datops_assets.components.runner import run_pipeline

        wanted = context or ExecutionContext()
        document = self._checked(context)
        return run_pipeline(document, _root(context), tables=wanted.tables, partition=wanted.partition)

    def start(self, context: ExecutionContext | None = None) -> Execution:
        """Begin a run in a process of its own, which `status()`, `wait()` and `cancel()` speak of.

        raises    DeclarationError: the document is wrong; nothing was started
        """
        self._checked(context)
        return start(self._file or self.to_yaml(), _root(context), context or ExecutionContext())

    async def run_async(self, context: ExecutionContext | None = None) -> PipelineRun:
        """As `run`, in a process of its own; cancelling the task cancels the run. Raises ExecutionError."""
        import asyncio

        execution = await asyncio.to_thread(self.start, context)
        return await run_elsewhere(execution)

    async def plan_async(self, context: ExecutionContext | None = None) -> list[Row]:
        """As `plan`, off the event loop."""
        import asyncio

        return await asyncio.to_thread(self.plan, context)

    async def status_async(self, context: ExecutionContext | None = None) -> list[Row]:
        """As `status`, off the event loop."""
        import asyncio

        return await asyncio.to_thread(self.status, context)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pipeline) and other._values == self._values

    __hash__ = None

    def _loaded(self) -> LoadedDocument:
        from datops_assets.components.documents import documents_of

        (loaded,) = documents_of(parse_yaml(self.to_yaml(), f"{self.name}.yaml"))
        return loaded

    def _checked(self, context: ExecutionContext | None) -> PipelineDocument:
        problems = self.validate(context)
        if problems:
            raise DeclarationError(problems)
        return self.document


def _root(context: ExecutionContext | None) -> Path:
    return (context.project_root if context and context.project_root else find_project_root()).resolve()


def _plain(value: Any) -> Any:
    """Values as YAML has them: enumerations by their word, paths as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value
