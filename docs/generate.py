"""Writes docs/reference/ from the code: every command, every key of every document, every error.

`python docs/generate.py` writes, `--check` only says which pages are stale (exit code 1).
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

REFERENCE = Path(__file__).parent / "reference"
_WRITTEN_BY = "<!-- Written by `make docs`; change the code, not this page. -->\n\n"


def describe_commands() -> str:
    """Markdown of every command, its arguments and options, as `--help` says them."""
    from typer.main import get_command

    from datops_assets.cli import _app

    lines = [_WRITTEN_BY + "# Commands\n"]
    for name, command in _walk("datops", get_command(_app())):
        lines.append(f"\n{'##' if name.count(' ') < 2 else '###'} `{name}`\n\n{_plain(command.help)}\n")
        rows = [
            _option_row(parameter) for parameter in command.params if not getattr(parameter, "hidden", False)
        ]
        if rows:
            lines.append("\n| | |\n| --- | --- |\n" + "".join(rows))
        if getattr(command, "commands", None):
            listed = sorted(child for child, found in command.commands.items() if not found.hidden)
            lines.append(f"\nCommands: {', '.join(f'`{child}`' for child in listed)}\n")
    return "".join(lines)


def _walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield name, command
    for child, found in sorted(getattr(command, "commands", {}).items()):
        if not found.hidden:
            yield from _walk(f"{name} {child}", found)


def _option_row(parameter: Any) -> str:
    value = parameter.metavar or parameter.name.upper()
    if parameter.param_type_name == "argument":
        shown = value
    else:
        shown = ", ".join([*parameter.opts, *parameter.secondary_opts])
        shown += "" if parameter.is_flag or parameter.count else f" {value}"
    notes = [_plain(parameter.help)]
    if parameter.required:
        notes.append("Required.")
    elif isinstance(parameter.default, str | int | float) and not parameter.is_flag:
        notes.append(f"Default: {parameter.default}.")
    return f"| `{_cell(shown)}` | {_cell(' '.join(filter(None, notes)))} |\n"


def describe_document() -> str:
    """Markdown of every key of a pipeline document, by part, from the model's own descriptions."""
    from datops_assets.components.document import PipelineDocument, TableDocument
    from datops_assets.components.sources import BUILT_IN, source_kind
    from datops_assets.postgres.widening import print_widening
    from datops_assets.quality.named_patterns import print_patterns
    from datops_assets.quality.types import print_types

    schema = PipelineDocument.model_json_schema()
    shown = dict(_parts("PipelineDocument", schema))
    common = TableDocument.model_json_schema()["properties"]
    for kind in map(source_kind, BUILT_IN):
        for model in (kind.settings, kind.table):
            for name, part in _parts(model.__name__, model.model_json_schema()):
                own = {
                    k: v
                    for k, v in part["properties"].items()
                    if model is not kind.table or v != common.get(k)
                }
                shown.setdefault(name, {**part, "properties": own})
    lines = [_WRITTEN_BY + "# Pipeline document\n"]
    return "".join([*lines, *_sections(shown)]) + _EXPLAINED.format(
        types=print_types(), widening=print_widening(), patterns=print_patterns()
    )


def describe_export() -> str:
    """Markdown of every key of an export document, by part, with the kinds of destinations of datops."""
    from datops_assets.components.destinations import BUILT_IN, ExportedTable, destination_kind
    from datops_assets.components.export_document import ExportDocument

    shown = dict(_parts("ExportDocument", ExportDocument.model_json_schema()))
    common = ExportedTable.model_json_schema()["properties"]
    lines = [_WRITTEN_BY + "# Export document\n\nWhat it means: [exports](../exports.md).\n"]
    for kind in map(destination_kind, BUILT_IN):
        for model in (kind.settings, kind.table):
            for name, part in _parts(model.__name__, model.model_json_schema()):
                own = {
                    k: v
                    for k, v in part["properties"].items()
                    if model is not kind.table or v != common.get(k)
                }
                text = part.get("description", "")
                if model is kind.settings:
                    text += f" A delivery arrives {kind.arrives}."
                shown.setdefault(name, {**part, "description": text, "properties": own})
    return "".join([*lines, *_sections(shown)])


def describe_stream() -> str:
    """Markdown of every key of a stream document, by part."""
    from datops_assets.components.streams.document import StreamDocument

    return _describe(
        StreamDocument, "Stream document", "[change data capture](../cdc.md)", "stream.yaml", "ChangeStream"
    )


def describe_backup() -> str:
    """Markdown of every key of a backup document, by part."""
    from datops_assets.components.backups.document import BackupDocument

    return _describe(
        BackupDocument, "Backup document", "[backups](../backup.md)", "backup.yaml", "DatabaseBackup"
    )


def describe_database() -> str:
    """Markdown of every key of a database document, by part."""
    from datops_assets.components.databases.document import TeamDatabaseDocument

    page = "[databases of teams](../databases.md)"
    return _describe(TeamDatabaseDocument, "Database document", page, "database.yaml", "TeamDatabase")


def _describe(model: type[BaseModel], title: str, page: str, file: str, component: str) -> str:
    """Markdown of a document that has one form; what a table's contract holds stands with the pipelines' one."""
    from datops_assets.components.document import JudgedTable

    of_contracts = {name for name, _ in _parts("JudgedTable", JudgedTable.model_json_schema())}
    shown = {
        name: part
        for name, part in _parts(model.__name__, model.model_json_schema())
        if name not in of_contracts
    }
    declared = f"The file is `{file}` beside a `defs.yaml` with `type: datops_assets.components.{component}`."
    text = f"# {title}\n\nWhat it means: {page}. {declared}\n" + "".join(_sections(shown))
    for name in of_contracts:
        text = text.replace(f"](#{name.lower()})", f"](pipeline-document.md#{name.lower()})")
    return _WRITTEN_BY + text.replace("](#what-", "](pipeline-document.md#what-")


def _sections(shown: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, part in shown.items():
        yield f"\n## {name}\n\n{_plain(part.get('description'))}\n\n| key | takes | default | |\n"
        yield "| --- | --- | --- | --- |\n"
        required = set(part.get("required", ()))
        for key, field in part["properties"].items():
            default = "required" if key in required else _default(field)
            text = _cell(_plain(field.get("description")))
            yield f"| `{key}` | {_cell(_kind(field))} | {_cell(default)} | {text} |\n"


def describe_errors() -> str:
    """Markdown of every error class: when it is raised, what a run does then, what a person does next."""
    from datops_assets.errors import DatopsError, RecordError, RetryableError, TerminalError

    _import_everything()
    lines = [_WRITTEN_BY + "# Errors\n" + _ERRORS]
    for group, heading in (
        (RetryableError, "Tried again"),
        (TerminalError, "For a person"),
        (RecordError, "One record"),
    ):
        lines.append(f"\n## {heading}\n\n{_first(group)} {_next(group)}\n")
        classes = sorted(
            _below(group), key=lambda one: (one.__module__ != DatopsError.__module__, one.__name__)
        )
        if classes:
            lines.append("\n| kind | means | what to do next |\n| --- | --- | --- |\n")
        lines += [f"| `{one.__name__}` | {_cell(_first(one))} | {_cell(_next(one))} |\n" for one in classes]
    return "".join(lines)


_ERRORS = """
Every error that datops raises on purpose has a kind, and the kind decides what happens. The message of an error says
what happened, where, and the next command; this page says what the kind means. A failed step in the web UI names it as
`kind`. The exit code is 2 where a declaration or the call is wrong, else 1. No message holds a secret or a cell.
"""


def _import_everything() -> None:
    """Error classes stand where they are raised; each module that has one must be there to be asked."""
    import datops_assets

    for module in pkgutil.walk_packages(datops_assets.__path__, "datops_assets."):
        if not module.name.startswith(
            ("datops_assets.defs", "datops_assets.testing", "datops_assets.definitions")
        ):
            importlib.import_module(module.name)


def _below(group: type[Exception]) -> Iterator[type[Exception]]:
    """Public classes below one, each once. A class that says nothing of its own is its parent to people."""
    for one in group.__subclasses__():
        if not one.__name__.startswith("_") and one.__module__.startswith("datops_assets."):
            yield one
        yield from _below(one)


def _first(error: type[Exception]) -> str:
    return _plain((error.__doc__ or "").partition("\n\n")[0])


def _next(error: type[Exception]) -> str:
    """What follows "Next:" in the docstring, or in that of the nearest class above which has one."""
    for one in error.__mro__:
        found = (one.__doc__ or "").partition("Next:")[2]
        if found:
            text = _plain(found)
            return text[0].upper() + text[1:]
    return ""


_EXPLAINED = """
## What `keep` means

Without it bronze keeps every row of every load for ever. With `keep: {{loads: 3}}` or `keep: {{days: 30}}` each run
lets go of rows that silver no longer needs, after it has loaded what is new:

- all rows of loads that gave way (replaced, undone), once silver has read what took their place; they only wait for
  `datops load undo`, which says so where they are gone;
- under `load: merge`, of older loads the rows that were overtaken: silver shows a later row of the same key.

The newest so many loads, or those of the last so many days, are left alone. What silver shows, what waits in the
quarantine and what a person dropped stays, however old, so silver judged again by the same contract is the same; a
changed contract sees what is still there. The entry in the catalogue stays and says when and how many
(`datops load show`); `rows_pruned` is on the bronze asset. `datops load prune` shows what may go, `--apply` does it.
The room is used by the loads that follow; `vacuum full` gives it back to the disk.

## What `load` means

| value | which loads silver holds |
| --- | --- |
| `append` | every load; where the contract has a `key`, of each key the winner by `latest_by`, then by load order |
| `merge` | as `append`, and a `key` is demanded |
| `replace` | those of the newest delivery |
| `snapshot` | as `replace`, and a `key` is demanded |

The newest delivery is the newest day's files where there is `partition:`. Else files of new names are a new delivery,
and a file of the live delivery with new content renews just that file: what was taken away leaves, the others stay.
Older loads are `superseded` once every file of the delivery is loaded, and not before. Bronze keeps all rows, or as
`keep` says.

## What `changed_file` means

What a run does with a file whose path is loaded, and whose content is another one now; one that was only touched is
left alone. Under `load: replace` and `snapshot` the value `append` does what `replace` does.

| value | the new content | the load before it |
| --- | --- | --- |
| `replace` | is loaded | is `superseded`: its rows leave silver |
| `append` | is loaded | stays live beside it |
| `refuse` | is refused, and the run fails | stays live; `datops load undo` of it lets the new one in at the next run |

## What `schema` means

What a delivery does whose columns are not those known: one came or left, has another name or another type. The order
of columns is no difference, nor is a type that the column holds as it is. JSON has no header: there a name that no
record has is not missing.

| value | bronze | silver |
| --- | --- | --- |
| `evolve` | follows: new columns are added, types widened where no value changes by it | holds the contract's columns |
| `freeze` | refuses the delivery whole and the run fails; `datops contract accept` takes its columns | is as it was |
| `quarantine` | follows | sets rows aside that have a value in a column which the contract does not know |

The columns that `freeze` keeps are those of the load before; the first load sets them. More in
[Contracts](../quality.md#columns-that-come-and-go).

### Types that widen

{widening}

## Which delivered column is which

A delivered name becomes a contract name by what `rename:` says of it, written exactly as it was delivered. Without
that it is split before each capital letter that follows a small letter or a digit and put in lower case; whatever is
neither a letter from a to z nor a digit becomes one `_`, with none at the ends. So `customerId`, `Customer ID` and
`customer-id` are all `customer_id`, and `Member No.` is `member_no`. Where several delivered names become the same
one, the first that has a value counts. A delivered column that the contract does not name stays in bronze. A contract
column that no file has is null; where the contract demands it, a run and `datops contract test` say so.

## Column types

{types}

## Patterns by name

What `like:` takes, check digits included; the whole text must be one, and null passes. `iso_currency` has the codes in
use (list of February 2026): for older ones, write `in:`.

{patterns}

## Numbers with a decimal comma

`numeric` and `double` take a decimal point only: for `1.234,56` there is no option. Declare the column as
`{{type: text, regex: '-?[0-9.]+,[0-9]{{2}}'}}` and turn it into a number in gold:
`replace(replace(price, '.', ''), ',', '.')::numeric(12,2)`.

## The short form

For a first look at files, without contracts: each entry becomes a pipeline with one table, which has bronze only.

```yaml
source_systems:
  - {{name: legacy, type: csv, path: data/legacy/orders.csv}}
  - {{name: events, type: jsonl, path: data/events}}
```

| key | takes | |
| --- | --- | --- |
| `name` | text | Name of the pipeline; each stands once. |
| `type` | `csv`, `jsonl`, `json`, `parquet` | Format of the files, whatever their ending. |
| `path` | text | A file, a folder, or a folder and a pattern such as `data/legacy/*.csv`. ${{NAME}} is a variable. |

The table of a file is called like the file up to its first dot: `bronze.legacy_orders`. A folder stands for the files
in it that end in `.csv` (or whatever `type` says), without its subfolders, and all of them are one table that is
called like the folder: `bronze.events_events`. Names alone do not tell whether `orders-1.csv` and `orders-2.csv` are
two days of one table and `orders.csv` and `customers.csv` two tables, and a guess that changes with the next file
would move rows. So files with different columns are mixed in one table, with every column of any of them: give each
kind an entry of its own (`path: data/events/orders-*.csv`), or write the full form, which has many tables. `team:`
beside `source_systems:` says who answers.
"""


def _parts(name: str, schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The document and its parts in the order in which they are referred to."""
    known = {name: schema, **schema.get("$defs", {})}
    waiting = [name]
    for shown in waiting:
        properties = known[shown].get("properties")
        if properties:
            fields = {key: _written_out(field, known) for key, field in properties.items()}
            yield shown, {**known[shown], "properties": fields}
        referred = re.findall(r'"#/\$defs/(\w+)"', json.dumps(properties or known[shown]))
        waiting += [part for part in dict.fromkeys(referred) if part not in waiting]


def _written_out(field: Mapping[str, Any], known: Mapping[str, Any]) -> Mapping[str, Any]:
    """A field whose value is a part without keys of its own (a list, a map): what it is made of."""
    target = known.get(field.get("$ref", "").rpartition("/")[2], {})
    if target and not target.get("properties"):
        return {**target, **{key: value for key, value in field.items() if key != "$ref"}}
    if "anyOf" in field:
        return {**field, "anyOf": [_written_out(one, known) for one in field["anyOf"]]}
    return field


def _kind(field: Mapping[str, Any]) -> str:
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    for together in ("anyOf", "oneOf", "allOf"):
        if together in field:
            kinds = dict.fromkeys(_kind(one) for one in field[together] if one.get("type") != "null")
            return "value" if {"text", "number", "true or false"} <= kinds.keys() else " or ".join(kinds)
    if field.get("type") == "array":
        return f"list of {_plural(_kind(field.get('items', {})))}"
    if field.get("type") == "object":
        values = field.get("additionalProperties")
        return f"map of {_plural(_kind(values))}" if isinstance(values, dict) else "map"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    return words.get(str(field.get("type")), "any value")


def _plural(kind: str) -> str:
    return {"text": "texts", "number": "numbers", "value": "values"}.get(kind, kind)


def _default(field: Mapping[str, Any]) -> str:
    value = field.get("default")
    return "" if value is None or value in ([], {}) or isinstance(value, dict) else f"`{json.dumps(value)}`"


def _plain(text: str | None) -> str:
    return " ".join((text or "").split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def describe_cases() -> str:
    """Markdown of the cases of change data capture and the tests that hold them."""
    sys.path.append(str(REFERENCE.parent.parent))
    from datops_assets_tests.cdc.cases import table

    return f"{_WRITTEN_BY}# Cases of change data capture\n\n{_CASES}{table()}"


_CASES = """What [change data capture](../cdc.md) is held to, on real servers. After each case the mirror is the source,
row by row as text, in both directions; the log of changes has each place once; and the source was told of nothing
that the warehouse does not have. The tests are in `datops_assets_tests/cdc/`: `pytest -k case_05` runs those of
case 5. What is slow is run by `make test-all`.
"""


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": describe_commands,
    "pipeline-document.md": describe_document,
    "cdc-cases.md": describe_cases,
    "export-document.md": describe_export,
    "stream-document.md": describe_stream,
    "backup-document.md": describe_backup,
    "database-document.md": describe_database,
    "errors.md": describe_errors,
}


def main(arguments: list[str]) -> int:
    """Write the pages, or with --check name the stale ones."""
    stale = []
    for name, describe in PAGES.items():
        page = REFERENCE / name
        text = describe()
        if page.exists() and page.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in arguments:
            page.parent.mkdir(exist_ok=True)
            page.write_text(text, encoding="utf-8")
            print(f"wrote docs/reference/{name}")
    if stale and "--check" in arguments:
        print(
            f"stale: {', '.join(f'docs/reference/{name}' for name in stale)}; run make docs", file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
