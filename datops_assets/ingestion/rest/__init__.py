"""APIs over HTTP: pages of JSON as JSON lines, each record as it was delivered.

Belongs here: asking politely and safely (client, address, credentials), what a page says (page),
where the next one is (pagination), what is new (incremental), and all of it as a source (source).
Does not: loading the lines (json_load), the document's keys (components).
"""

from datops_assets.ingestion.rest.credentials import (
    ApiKey,
    Basic,
    Bearer,
    ClientCredentials,
    Credentials,
    Secret,
)
from datops_assets.ingestion.rest.incremental import Incremental
from datops_assets.ingestion.rest.pagination import (
    Cursor,
    LinkHeader,
    NextUrl,
    Offset,
    PageNumber,
    Pagination,
    SinglePage,
)
from datops_assets.ingestion.rest.source import RestSource
from datops_assets.ingestion.rest.tables import Api, ChunkLimits, RestTable

__all__ = [
    "Api",
    "ApiKey",
    "Basic",
    "Bearer",
    "ChunkLimits",
    "ClientCredentials",
    "Credentials",
    "Cursor",
    "Incremental",
    "LinkHeader",
    "NextUrl",
    "Offset",
    "PageNumber",
    "Pagination",
    "RestSource",
    "RestTable",
    "Secret",
    "SinglePage",
]
