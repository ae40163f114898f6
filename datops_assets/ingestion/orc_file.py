"""An ORC file as a delivery of record batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow import orc

from datops_assets.ingestion.typed_file import BATCH_BYTES, MOST_ROWS, TypedFile

_PROBE_ROWS = 1024


class OrcDelivery(TypedFile):
    """One ORC file, read in batches of about 16 MiB.

    Its timestamps have nanoseconds, so bronze holds them as text, as it does those of Parquet.
    """

    noun: ClassVar[str] = "ORC"

    def _open(self, path: Path) -> None:
        self._schema = orc.ORCFile(path).schema
        self._dataset = ds.dataset(path, format="orc")

    def schema(self) -> pa.Schema:
        """Return the columns."""
        return self._schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order."""
        with self.reading():
            try:
                yield from self._scanned(self._rows_at_once())
            except pa.ArrowInvalid as error:
                if "out of range" not in str(error):
                    raise
                raise self.refused(
                    "holds a timestamp before 1677 or after 2262, which Arrow cannot read from ORC;"
                    " deliver it as Parquet"
                ) from None

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def _scanned(self, rows: int) -> Iterator[pa.RecordBatch]:
        scanned = self._dataset.to_batches(
            batch_size=rows, batch_readahead=0, fragment_readahead=0, use_threads=False
        )
        return (batch for batch in scanned if batch.num_rows)

    def _rows_at_once(self) -> int:
        """How many rows make about 16 MiB, going by the first ones: the footer does not say."""
        first = next(self._scanned(_PROBE_ROWS), None)
        if first is None:
            return MOST_ROWS
        return max(1, min(MOST_ROWS, BATCH_BYTES * first.num_rows // max(first.nbytes, 1)))
