"""What files of typed formats (Parquet, ORC, Avro) have in common: read from disk, hashed, refused whole."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from datops_assets.errors import DatopsError, FileChangedError, SourceRefusedError
from datops_assets.ingestion.packed import packing_named
from datops_assets.ingestion.source import ArrowDelivery, Unit
from datops_assets.ingestion.store import LocalStore, Store, broken

BATCH_BYTES = 16 << 20
MOST_ROWS = 1 << 16


class TypedFile(ArrowDelivery):
    """One file of a typed format."""

    noun: ClassVar[str]
    """As in "is not a whole … file"."""

    def __init__(self, unit: Unit, store: Store | None = None) -> None:
        self._unit = unit
        self._store = store or LocalStore()
        self._path = self._store.local_path(unit)
        with self.reading():
            self._open(self._path)

    @abstractmethod
    def _open(self, path: Path) -> None:
        """Open the file and read what it says of its columns."""

    def content_hash(self) -> str:
        """Hash the file; that it did not change since it was listed covers the time it was read."""
        return self._store.hash_content(self._unit)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Say what is wrong where the file cannot be read."""
        try:
            yield
        except FileNotFoundError:
            raise FileChangedError(
                f"{self._unit.path} vanished before it was read; nothing of it was kept"
            ) from None
        except (pa.ArrowException, OSError) as error:
            raise self.damaged(type(error).__name__) from error

    def damaged(self, why: str) -> DatopsError:
        """Say that the file is not whole; one that is still being written is not called so."""
        if packing_named(self._unit.path) is not None:
            return self.refused(
                f"is packed, and {self.noun} is packed inside already; deliver it as it was before"
            )
        return self.refused(f"is not a whole {self.noun} file ({why}); deliver it again")

    def refused(self, what: str) -> DatopsError:
        """Refuse the file whole; `what` is the rest of a sentence about it."""
        return broken(self._unit, f" {what}", lambda: self._store.require_unchanged(self._unit))


def driver(module: str, extra: str, purpose: str) -> Any:
    """Import a library that comes with an extra.

    raises     SourceRefusedError: it is not installed
    """
    try:
        return import_module(module)
    except ImportError:
        raise SourceRefusedError(
            f"{purpose} needs {module.partition('.')[0]}, which is not installed: pip install 'datops[{extra}]'"
        ) from None
