"""Files as a kind of source: the keys of the document, and what ingestion makes of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, create_model, field_validator, model_validator
from pydantic_core import PydanticKnownError

from datops_assets.components.document import (
    DailyPartition,
    Part,
    PipelineDocument,
    SourceSettings,
    TableDocument,
)
from datops_assets.components.sources.kind import SourceKind
from datops_assets.components.sources.templates import fill_in, resolve_path
from datops_assets.components.texts import Encoding, EncodingOrAuto, Globs, Marker, PathTemplate
from datops_assets.config.settings import read_secret
from datops_assets.errors import DeclarationError

if TYPE_CHECKING:
    from datops_assets.ingestion import AfterLoad, FileSource, FileTable, FixedOptions
    from datops_assets.ingestion.store import Store


_MOST_FIXED_COLUMNS = 1500
_URL = re.compile(r"[a-z][a-z0-9+.-]*://")
_PACKED = re.compile(r"\.(gz|zst|bz2|xz|zip)$", re.IGNORECASE)


_SECRET = re.compile(
    r"(^|_)(secret|password|passphrase|token|key|string|pat)$|account_key|sas_token|secret|^authorization$|api-key$",
    re.IGNORECASE,
)
_NO_SECRET = frozenset({"key", "key_filename", "anon"})
"""An access key's id is no secret."""


def _secret_names(options: Mapping[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _secret_names(value)
        elif name.endswith("_env") or name in _NO_SECRET:
            continue
        elif isinstance(value, str) and _SECRET.search(name):
            yield name


class FilesSource(SourceSettings):
    """Files below one folder."""

    templated: ClassVar[tuple[str, ...]] = ("path", "archive")
    type: Literal["files"]
    path: PathTemplate = Field(
        description="Folder of the files, relative to the project root, or a URL (s3://, gs://, abfs://, sftp://,"
        " https://, …). ${NAME} is a variable."
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="URLs: given to the store's driver; `<key>_env` names the variable that holds a value.",
    )

    after_load: Literal["leave", "archive", "delete"] = Field(
        "leave", description="What becomes of a file once it is loaded; not with whole deliveries."
    )
    archive: PathTemplate | None = Field(
        None,
        description="`after_load: archive`: folder, or URL in the same store, beside the source's path; files go to"
        " `<archive>/<day>/<path>`.",
    )

    @model_validator(mode="after")
    def _archive_where_needed(self) -> FilesSource:
        if (self.after_load == "archive") != (self.archive is not None):
            raise ValueError("`after_load: archive` and `archive:` belong together, expected both")
        if self.after_load != "leave" and self.path.startswith(("http://", "https://")):
            raise ValueError("files of a web server stay where they are, expected `after_load: leave`")
        return self

    @field_validator("path")
    @classmethod
    def _path(cls, value: str) -> str:
        if re.search(r"://[^/@]*:[^/@]*@", value):
            raise ValueError("a password stands in the URL, expected `options: {password_env: NAME}`")
        return value

    @field_validator("options")
    @classmethod
    def _options(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in _secret_names(value):
            raise ValueError(
                f"a secret stands in the document, expected `{name}_env: NAME` in place of {name}"
            )
        return value

    @property
    def shown(self) -> str:
        """The folder as it is written."""
        return self.path


class Csv(Part):
    """How the CSV files of a table are written."""

    delimiter: str = Field(
        ",",
        min_length=1,
        description="One character; `auto`: , ; | or a tab, told by each file's first records.",
    )
    encoding: EncodingOrAuto = Field(
        "utf-8", description="`auto`: told by each file's first bytes, and stated with its load."
    )
    header: bool = Field(True, description="Whether the first record holds the column names.")

    @field_validator("delimiter")
    @classmethod
    def _delimiter(cls, value: str) -> str:
        if value != "auto" and (len(value) != 1 or not value.isascii() or value in '"\r\n\0'):
            raise ValueError("not a delimiter, expected one ASCII character other than a quote or a line end")
        return value


class Excel(Part):
    """Where in the workbooks of a table the records are."""

    sheet: str | None = Field(None, min_length=1, description="Not needed where there is only one.")
    header_row: int = Field(1, ge=1, description="Row of the column names; what is above is passed over.")


class FixedColumn(Part):
    """One column of a fixed-width text, in characters."""

    name: str = Field(min_length=1)
    start: int | None = Field(None, ge=1, description="Its first character, from 1; behind the one before.")
    width: int = Field(ge=1)


class Fixed(Part):
    """Where the columns of fixed-width text stand."""

    columns: list[FixedColumn] = Field(min_length=1, max_length=_MOST_FIXED_COLUMNS)
    encoding: Encoding = "utf-8"
    trim: bool = Field(False, description="Whether blanks around a value are no part of it.")


class Landing(Part):
    """When a file counts as fully delivered, and how many a day should bring."""

    stable_for_s: float = Field(
        0, ge=0, allow_inf_nan=False, description="Seconds since the last change before a file is taken."
    )
    done_marker: Marker | None = Field(
        None,
        description='A file beside it that says "complete"; {name} stands for the file, e.g. `{name}.done`.',
    )
    files_per_day: int | None = Field(None, ge=1, description="Checked on the bronze asset.")


class FileTableDocument(TableDocument):
    """One table: which files, how they are read, what silver demands."""

    files: Globs = Field(description="Glob below the source's path, e.g. `orders/*.csv`, or a list of globs.")
    format: Literal["csv", "jsonl", "json", "parquet", "orc", "avro", "excel", "fixed"] | None = Field(
        None, description="Taken from the file's ending where it is not given."
    )
    csv: Csv = Csv()
    excel: Excel = Excel()
    fixed: Fixed | None = None
    records: str | None = Field(None, description="JSON files: dotted path to the array of records.")
    member: str | None = Field(
        None, min_length=1, description="Zip: which of its files, as a glob, e.g. `*/stops.txt`; one may fit."
    )
    landing: Landing = Landing()
    changed_file: Literal["append", "replace", "refuse"] = Field(
        "replace",
        description="What a known path with new content does: see [below](#what-changed_file-means).",
    )
    partition: DailyPartition | None = None

    @field_validator("files", mode="before")
    @classmethod
    def _text_or_texts(cls, value: Any) -> Any:
        if not isinstance(value, str | list):
            raise PydanticKnownError("string_type")
        return value

    @model_validator(mode="after")
    def _fixed_with_columns(self) -> FileTableDocument:
        if (self.format == "fixed") != (self.fixed is not None):
            raise ValueError("`format: fixed` and `fixed: {columns: [...]}` belong together, expected both")
        return self

    @property
    def delivered_as(self) -> str:
        """The patterns."""
        return ", ".join(self.patterns)

    @property
    def patterns(self) -> list[str]:
        """The globs, one or more."""
        return [self.files] if isinstance(self.files, str) else self.files

    @property
    def technology(self) -> str:
        """The format, stated or by the pattern's ending."""
        ending = _PACKED.sub("", self.patterns[0]).rpartition(".")[2].lower()
        return self.format or {"ndjson": "jsonl"}.get(ending, ending if ending.isalnum() else "file")

    @property
    def days(self) -> DailyPartition | None:
        """As declared."""
        return self.partition


def _fixed(fixed: Fixed) -> FixedOptions:
    from datops_assets import ingestion

    columns, following = [], 0
    for column in fixed.columns:
        begin = following if column.start is None else column.start - 1
        columns.append(ingestion.FixedColumn(column.name, begin, column.width))
        following = begin + column.width
    return ingestion.FixedOptions(tuple(columns), fixed.encoding, fixed.trim)


class FilesKind(SourceKind[FilesSource, FileTableDocument]):
    """Files below one folder: CSV, JSON lines, JSON, Parquet, ORC, Avro, Excel, fixed width."""

    settings = FilesSource
    table = FileTableDocument
    watched = "files"

    def declare(self, document: PipelineDocument, name: str, project_root: Path) -> FileTable:
        """Say which files, and how they are read."""
        from datops_assets import ingestion

        source, table = self.parts(document, name)
        days = table.partition
        return ingestion.FileTable(
            source=document.pipeline,
            name=name,
            root=_root(source, project_root),
            pattern="\n".join(table.patterns),
            format=table.format,
            csv=ingestion.CsvOptions(**table.csv.model_dump()),
            records=table.records,
            excel=ingestion.ExcelOptions(**table.excel.model_dump()),
            fixed=_fixed(table.fixed) if table.fixed else None,
            member=table.member,
            landing=ingestion.Landing(**table.landing.model_dump()),
            disposition=table.load,
            changed_file=table.changed_file,
            partition=ingestion.FilePartition(days.daily, days.format) if days else None,
            rename=table.rename,
        )

    def open(self, document: PipelineDocument, project_root: Path) -> FileSource:
        """Connections open when something is asked of it."""
        from datops_assets.ingestion import FileSource

        source = document.source
        assert isinstance(source, FilesSource)
        root = _root(source, project_root)
        store = None if isinstance(root, Path) else _store(root, source, project_root)
        return FileSource(store=store, after_load=_after_load(source, root, project_root))

    @classmethod
    def document(cls) -> type[PipelineDocument]:
        """The model of a whole document; files that are put away are no whole deliveries."""
        return create_model(
            "FilesDocument",
            __base__=super().document(),
            __doc__=PipelineDocument.__doc__,
            __validators__={"_put_away": model_validator(mode="after")(_no_whole_delivery_put_away)},  # type: ignore[dict-item]
        )


def _no_whole_delivery_put_away(document: PipelineDocument) -> PipelineDocument:
    source = document.source
    assert isinstance(source, FilesSource)
    for name, table in document.tables.items():
        if source.after_load != "leave" and table.load in ("replace", "snapshot"):
            raise ValueError(
                f"tables.{name}: load: {table.load} goes by the files that are there, expected `after_load: leave`"
            )
    return document


def _after_load(source: FilesSource, root: Path | str, project_root: Path) -> AfterLoad:
    from datops_assets import ingestion

    if source.archive is None:
        return ingestion.AfterLoad(source.after_load)
    place = fill_in(source.archive)
    archive = place.rstrip("/") if _URL.match(place) else resolve_path(source.archive, project_root)
    if isinstance(root, Path) != isinstance(archive, Path):
        raise DeclarationError([f"source.archive: {source.archive} is in another store than source.path"])
    inside = (
        archive.is_relative_to(root)
        if isinstance(archive, Path) and isinstance(root, Path)
        else f"{archive}/".startswith(f"{root}/")
    )
    if inside:
        raise DeclarationError(
            [
                f"source.archive: {source.archive} lies inside source.path, where its files would be found again"
            ]
        )
    return ingestion.AfterLoad(source.after_load, archive)


def missing_folder(document: PipelineDocument, project_root: Path) -> str | None:
    """Say that the folder of a document's files is not there; None: it is, or it is no folder of this machine."""
    if not isinstance(document.source, FilesSource):
        return None
    folder = _root(document.source, project_root)
    if isinstance(folder, str) or folder.is_dir():
        return None
    return f"the folder {folder} does not exist; make it, or correct the path"


def _root(source: FilesSource, project_root: Path) -> Path | str:
    place = fill_in(source.path)
    if _URL.match(place) and not place.startswith("file://"):
        return place.rstrip("/")
    return resolve_path(source.path.removeprefix("file://"), project_root)


def _store(url: str, source: FilesSource, project_root: Path) -> Store:
    options = _with_secrets(source.options, project_root)
    if url.startswith(("http://", "https://")):
        from datops_assets.ingestion.http_store import HttpStore

        return HttpStore(url, options)
    from datops_assets.ingestion.remote import RemoteStore

    return RemoteStore(url, options)


def _with_secrets(options: Mapping[str, Any], project_root: Path) -> dict[str, Any]:
    """Put the values of variables in the place of `<key>_env`. Raises TerminalError: one is not set."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            found[name] = _with_secrets(value, project_root)
        elif name.endswith("_env") and isinstance(value, str):
            found[name.removesuffix("_env")] = read_secret(value, project_root).get_secret_value()
        else:
            found[name] = value
    return found
