"""What a kind of source brings: its keys in the document, and how its tables are opened.

A plug-in registers a subclass of SourceKind under the entry point group `datops.sources`; files,
databases and APIs are kinds like any other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast, get_args

from pydantic import Field, create_model

from datops_assets.components.document import PipelineDocument, SourceSettings, TableDocument
from datops_assets.components.texts import TableName

if TYPE_CHECKING:
    from datops_assets.ingestion import Source, SourceTable

SettingsT = TypeVar("SettingsT", bound=SourceSettings)
TableT = TypeVar("TableT", bound=TableDocument)


class SourceKind(ABC, Generic[SettingsT, TableT]):
    """One word after `source: {type: …}`. Loading definitions uses the models only; opening needs a run."""

    settings: type[SettingsT]
    """Model of `source:`; its `type` is a Literal with the kind's one name."""
    table: type[TableT]
    """Model of one table."""
    watched: ClassVar[str | None] = None
    """What a sensor looks for every 30 s (`files`); None: only a schedule or a person starts a run."""

    @classmethod
    def name(cls) -> str:
        """The word a document uses."""
        (word,) = get_args(cls.settings.model_fields["type"].annotation)
        return str(word)

    @classmethod
    def summary(cls) -> str:
        """One line for lists: the first of the class's docstring."""
        return (cls.__doc__ or cls.name()).strip().splitlines()[0]

    @classmethod
    def document(cls) -> type[PipelineDocument]:
        """The model of a whole document of this kind."""
        return create_model(
            f"{cls.name().title()}Document",
            __base__=PipelineDocument,
            __doc__=PipelineDocument.__doc__,
            source=(cls.settings, ...),
            tables=(dict[TableName, cls.table], Field(min_length=1)),  # type: ignore[name-defined]
        )

    def parts(self, document: PipelineDocument, name: str) -> tuple[SettingsT, TableT]:
        """The source and one table of a document, as this kind's models."""
        return cast(SettingsT, document.source), cast(TableT, document.tables[name])

    @abstractmethod
    def declare(self, document: PipelineDocument, name: str, project_root: Path) -> SourceTable:
        """Say what ingestion needs to know of one table.

        raises    DeclarationError: a variable is not set
        """

    @abstractmethod
    def open(self, document: PipelineDocument, project_root: Path) -> Source[Any]:
        """Make the source of a document's tables; connections open when something is asked of it.

        raises    DeclarationError: a variable is not set
        """
