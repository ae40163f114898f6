"""What a person declares about an API and its tables: values only, nothing is opened here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from datops_assets.ingestion.rest.credentials import Credentials, Secret
from datops_assets.ingestion.rest.incremental import Incremental
from datops_assets.ingestion.rest.pagination import Pagination, SinglePage
from datops_assets.ingestion.tables import ChangedFile, SourceTable, reading_of

Method = Literal["GET", "POST", "PUT", "DELETE"]


@dataclass(frozen=True)
class Api:
    """One API: where it is, who we are to it, and how much we ask of it."""

    url: str
    """Base of all addresses, without user and password."""
    credentials: Credentials | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    secret_headers: Mapping[str, Secret] = field(default_factory=dict, repr=False)
    allow_private: bool = False
    """Whether the host of `url` (and of the token server) may be in a private network; no other host may."""
    ca_file: Path | None = None
    """Certificates of an authority of our own, trusted beside the usual ones."""
    timeout_s: float = 30
    """Longest silence; a whole answer may take ten times as long."""
    tries: int = 5
    """Requests for one page, the first among them."""
    wait_s: float = 300
    """Longest wait for one page in all, whether the API asks for it or we do."""
    backoff_s: float = 1
    """Wait before the second try; doubles after that."""
    requests_per_s: float | None = None
    concurrency: int = 1
    """Pages asked for at once where they do not depend on each other."""
    max_response_bytes: int = 64 << 20
    """Size of one unpacked answer that is held in memory."""


@dataclass(frozen=True)
class ChunkLimits:
    """Where a reading that can go on later is cut: what is lost when it dies is one chunk."""

    pages: int = 1000
    size_bytes: int = 64 << 20
    seconds: float = 600


@dataclass(frozen=True, kw_only=True)
class RestTable(SourceTable):
    """One endpoint: what is asked, where the records are in the answer, how one gets to the next page."""

    path: str
    path_params: Mapping[str, str | int] = field(default_factory=dict)
    method: Method = "GET"
    params: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    parameters_in: Literal["query", "body"] = "query"
    """Where parameters of pages and of what is new go."""
    records: str | None = None
    """Dotted path to the array of records; None: the answer is the array."""
    single: bool = False
    """Whether what is there is one record, not an array."""
    pagination: Pagination = field(default_factory=SinglePage)
    incremental: Incremental | None = None
    limits: ChunkLimits = ChunkLimits()
    portions: ChunkLimits = ChunkLimits(pages=200, size_bytes=16 << 20, seconds=60)
    """What a whole reading keeps at a time before it is at its end, so that it can be gone on from."""

    @property
    def changed_unit(self) -> ChangedFile:
        """Another answer to the same question is one more delivery."""
        return "append"

    @property
    def reading(self) -> str:
        """Return what changes when the endpoint is to be read in another way."""
        return reading_of(self.path, self.method, self.records, self.single, self.whole)

    @property
    def question(self) -> str:
        """Return what changes when anything else is asked, so that a reading cannot go on."""
        return reading_of(
            self.reading, sorted(self.path_params.items()), sorted(self.params.items()), self.body,
            self.parameters_in, self.pagination,
        )  # fmt: skip
