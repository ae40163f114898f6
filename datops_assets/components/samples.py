"""Sample files against a contract, without a warehouse.

Belongs here: which files, and their records as the texts that the contract judges. Does not:
how a file is read (ingestion), a verdict (quality).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datops_assets.components.document import PipelineDocument, TableDocument
from datops_assets.components.sources import declared_table, open_source
from datops_assets.errors import DeclarationError

if TYPE_CHECKING:
    from datops_assets.ingestion import Delivery, FileTable, Source, Unit
    from datops_assets.ingestion.records import DeliveredRecord
    from datops_assets.quality import Contract

Texts = dict[str, str | None]


@dataclass(frozen=True)
class SampleVerdict:
    """What a contract says of sample files.

    failing      records that would not reach silver: damaged ones, and those a rule sets aside
    reasons      how many records have which reason, most first; those of warnings too
    not_judged   what only the warehouse can judge
    """

    table: str
    files: list[str]
    records: int
    failing: int
    warned: int
    reasons: list[tuple[str, int]]
    not_judged: list[str]
    not_delivered: list[str] = field(default_factory=list)
    """A sentence for each column that the contract demands and no file has."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON: reasons as objects."""
        named = [{"reason": reason, "records": count} for reason, count in self.reasons]
        return {**self.__dict__, "reasons": named}


def judge_samples(
    document: PipelineDocument, name: str, project_root: Path, files: Sequence[Path], rows: int
) -> SampleVerdict:
    """Judge the first records of sample files by the row rules of one table's contract.

    files    those to read; none: the newest of the table
    rows     at most this many records of each file
    raises   DeclarationError: a file is not there. ContainerDamagedError: one cannot be read at all
    """
    from datops_assets.ingestion import FileTable

    spec = document.tables[name]
    assert spec.contract is not None
    table = declared_table(document, name, project_root)
    if not isinstance(table, FileTable):
        raise DeclarationError(
            [
                f"{table.label} comes from no files; to try its contract out:"
                f" datops pipeline run {document.pipeline} --table {name} --sample 1000 --into try_out"
            ]
        )
    tally = _Tally()
    with _source(document, project_root, files) as source:
        units = [_unit(table, file) for file in files] or [_newest(table, source)]
        for unit in units:
            with source.open(unit) as delivery:
                _judge_file(spec, table, unit, delivery, rows, tally)
    return SampleVerdict(
        table=f"{document.pipeline}.{name}",
        files=[unit.path for unit in units],
        records=tally.records,
        failing=tally.failing,
        warned=tally.warned,
        reasons=sorted(tally.reasons.items(), key=lambda item: (-item[1], item[0])),
        not_judged=tally.not_judged,
        not_delivered=_not_delivered(spec, tally),
    )


def _not_delivered(spec: TableDocument, tally: _Tally) -> list[str]:
    from datops_assets.postgres.names import contract_name
    from datops_assets.quality.delivered import not_delivered

    assert spec.contract is not None
    known = {contract_name(name, spec.rename) for name in tally.names}
    missed = [
        name
        for name, rule in spec.contract.columns.items()
        if (rule.required or name in spec.contract.key) and rule.from_ is None and name not in known
    ]
    return [not_delivered(name, tally.names) for name in missed if tally.names]


@dataclass
class _Tally:
    """Counts so far."""

    records: int = 0
    failing: int = 0
    warned: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    names: dict[str, None] = field(default_factory=dict)
    """Delivered column names, in the order they came."""
    not_judged: list[str] = field(default_factory=list)

    def fails(self, *reasons: str) -> None:
        """Count one record that a rule beyond `test_contract` sets aside."""
        self.failing += 1
        self.reasons.update(reasons)


def _judge_file(
    spec: TableDocument, table: FileTable, unit: Unit, delivery: Delivery, rows: int, tally: _Tally
) -> None:
    from datops_assets.ingestion.records import read_records
    from datops_assets.quality import test_contract

    assert spec.contract is not None
    unreadable: list[tuple[Texts, list[str]]] = []
    records = islice(read_records(delivery, table, unit), rows)
    trial = test_contract(
        spec.contract, _texts(records, spec, tally, unreadable), rename=spec.rename, path=unit.path
    )
    tally.failing += trial.failing
    tally.warned += trial.warned
    tally.reasons.update(trial.reasons)
    tally.not_judged = list(trial.not_judged)
    for row, names in unreadable:
        alone = test_contract(spec.contract, [row], rename=spec.rename, path=unit.path).verdicts.get(0, [])
        missing = {f"{name}: missing" for name in names}
        none_such = [f"{name}: not {spec.contract.columns[name].kind.noun}" for name in names]
        tally.fails(*dict.fromkeys([*(reason for reason in alone if reason not in missing), *none_such]))


def _texts(
    records: Iterator[DeliveredRecord],
    spec: TableDocument,
    tally: _Tally,
    unreadable: list[tuple[Texts, list[str]]],
) -> Iterator[Texts]:
    """Yield the delivered texts of whole records; damaged ones are counted, unreadable ones noted."""
    assert spec.contract is not None
    for record in records:
        tally.records += 1
        if record.damage is not None:
            tally.fails(record.damage)
            continue
        tally.names.update(dict.fromkeys(record.values))
        row, names = _judged_texts(record.values, spec.contract, spec.rename)
        if names:
            unreadable.append((row, names))
        else:
            yield row


def _judged_texts(
    values: Mapping[str, str | None], contract: Contract, rename: Mapping[str, str]
) -> tuple[Texts, list[str]]:
    """The texts that a contract judges, and the contract columns whose JSON cannot become text."""
    from datops_assets.ingestion.records import JsonText
    from datops_assets.postgres.names import contract_name

    row: Texts = {}
    names = []
    for delivered, value in values.items():
        row[delivered] = value
        if not isinstance(value, JsonText):
            continue
        name = contract_name(delivered, rename)
        rule = contract.columns.get(name)
        try:
            text = _scalar_text(value)
        except ValueError:
            text = None
            if rule is not None:
                names.append(name)
        keeps_json = text is not None and rule is not None and rule.kind.name == "json"
        row[delivered] = str(value) if keeps_json else text
    return row, names


def _scalar_text(value: str) -> str | None:
    """A JSON value as text: strings unquoted, null as None, anything else as delivered.

    raises   ValueError: a string that PostgreSQL's text cannot hold (a NUL, half a surrogate pair)
    """
    if value == "null":
        return None
    if "\\u" in value:
        for text in _strings(json.loads(value, parse_int=str, parse_float=str)):
            if "\0" in text:
                raise ValueError("a NUL")
            text.encode()  # half a surrogate pair raises UnicodeEncodeError, a ValueError
    return str(json.loads(value)) if value.startswith('"') else str(value)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for member in value:
            yield from _strings(member)
    elif isinstance(value, dict):
        for name, member in value.items():
            yield name
            yield from _strings(member)


def _source(document: PipelineDocument, project_root: Path, files: Sequence[Path]) -> Source[FileTable]:
    """Where the samples are: on this machine where they are named."""
    from datops_assets.ingestion import FileSource

    return FileSource() if files else open_source(document, project_root)


def _unit(table: FileTable, file: Path) -> Unit:
    from datops_assets.ingestion.listing import fingerprint
    from datops_assets.ingestion.source import Unit

    path = file.resolve()
    if not path.is_file():
        raise DeclarationError([f"there is no file {file}, expected a sample of {table.label}"])
    below = path.relative_to(table.root).as_posix() if path.is_relative_to(table.root) else path.name
    stat = path.stat()
    if table.format_of(below) is None:
        raise DeclarationError([f"{file}: its ending names no format, expected `format:` in {table.label}"])
    return Unit(
        below, table.format_of(below), stat.st_size, fingerprint(stat), location=str(path), declared=table
    )


def _newest(table: FileTable, source: Source[FileTable]) -> Unit:
    ready = [unit for unit in source.list_units(table) if unit.waiting is None and unit.format]
    if not ready:
        nothing = f"{table.label} has no file {table.pattern} below {table.root} yet"
        raise DeclarationError([f"{nothing}, expected one, or the name of a sample file"])
    return ready[-1]
