"""APIs over HTTP as a kind of source: the keys of the document, and what ingestion makes of them."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from datops_assets.components.document import Part, PipelineDocument, SourceSettings, TableDocument
from datops_assets.components.sources.kind import SourceKind
from datops_assets.components.sources.templates import fill_in, resolve_path
from datops_assets.components.texts import VARIABLE, PathTemplate
from datops_assets.errors import DeclarationError

if TYPE_CHECKING:  # httpx is imported when an API is opened, not when definitions load
    from datops_assets.ingestion import rest
    from datops_assets.ingestion.tables import Disposition

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_PLACE = re.compile(r"\{([^{}]*)\}")
_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key", "api-key"})
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding"})

Scalar = str | int | float | bool


def _variable_name(value: str) -> str:
    if not _VARIABLE_NAME.match(value):
        raise ValueError("not the name of a variable, expected letters, digits and _ such as SHOP_TOKEN")
    return value


def _header_name(value: str) -> str:
    if not _HEADER.match(value):
        raise ValueError("not the name of a header, expected letters, digits and - such as X-Api-Key")
    if value.lower() in _OURS:
        raise ValueError("a header that the connection itself sets, expected it to be left out")
    return value


def _header_text(value: str) -> str:
    if not value.isascii() or not value.isprintable():
        raise ValueError("no header can carry this, expected printable ASCII characters")
    return value


def _dotted(value: str) -> str:
    if not all(value.split(".")):
        raise ValueError("not a path, expected names joined by dots such as data.items")
    return value


def _url_problem(url: str) -> str | None:
    """What is wrong with an address; None: nothing. `${NAME}` may stand anywhere in it."""
    try:
        parts = urlsplit(VARIABLE.sub("x", url))
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        return "not an address, expected one such as https://api.example.com/v1"
    if not url.startswith("${") and parts.scheme not in ("http", "https"):
        return "not an address, expected one such as https://api.example.com/v1"
    if "@" in parts.netloc:
        return "a user stands in the address, expected `auth: {type: basic, …}` with the name of a variable"
    if parts.query or parts.fragment:
        return "parameters stand in the address, expected them as `params:` of a table"
    if (not url.startswith("${") and not parts.hostname) or not port_is_fine:
        return "not an address, expected one such as https://api.example.com/v1"
    return None


def _url(value: str) -> str:
    problem = _url_problem(value)
    if problem:
        raise ValueError(problem)
    return value


VariableName = Annotated[str, AfterValidator(_variable_name)]
HeaderName = Annotated[str, AfterValidator(_header_name)]
HeaderText = Annotated[str, AfterValidator(_header_text)]
Dotted = Annotated[str, AfterValidator(_dotted)]
Url = Annotated[PathTemplate, AfterValidator(_url)]
ParameterName = Annotated[str, Field(min_length=1)]


class NoAuth(Part):
    """Anybody may ask."""

    type: Literal["none"]


class BasicAuth(Part):
    """A user and a password."""

    type: Literal["basic"]
    user: str = Field(min_length=1)
    password_env: VariableName = Field(description="Name of the variable that holds the password.")


class BearerAuth(Part):
    """A token that somebody made for us."""

    type: Literal["bearer"]
    token_env: VariableName = Field(description="Name of the variable that holds the token.")


class ApiKeyAuth(Part):
    """A key in a header or a query parameter."""

    type: Literal["api_key"]
    name: HeaderName = Field("X-Api-Key", description="Name of the header or the parameter.")
    key_env: VariableName = Field(description="Name of the variable that holds the key.")
    key_in: Literal["header", "query"] = "header"


class OAuth2Auth(Part):
    """OAuth 2 client credentials: a token is fetched, renewed before it expires, and once when it is refused."""

    type: Literal["oauth2"]
    token_url: Url = Field(description="Where tokens are given out.")
    client_id_env: VariableName = Field(description="Name of the variable that holds the client's id.")
    client_secret_env: VariableName = Field(description="Name of the variable that holds its secret.")
    scope: str | None = None
    secret_in: Literal["header", "body"] = Field("header", description="Where the token server expects both.")


Auth = Annotated[
    NoAuth | BasicAuth | BearerAuth | ApiKeyAuth | OAuth2Auth,
    Field(discriminator="type"),
]


class SinglePages(Part):
    """One answer is all there is."""

    type: Literal["none"]


class _Counted(Part):
    size_param: ParameterName | None = Field(None, description="Parameter that takes the page's size.")
    size: int | None = Field(None, ge=1, description="Records asked for on each page.")
    total: Dotted | None = Field(None, description="Path in the answer to how many records there are in all.")
    total_header: HeaderName | None = Field(None, description="Header that says so.")
    stop: Literal["empty", "short"] = Field(
        "empty", description="The last page, where no total is known: an empty one, or one that is not full."
    )

    @model_validator(mode="after")
    def _complete(self) -> _Counted:
        if self.size_param and not self.size:
            raise ValueError("size_param without size, expected both")
        if self.stop == "short" and not self.size:
            raise ValueError("stop: short without size, expected how many records a full page has")
        if self.total and self.total_header:
            raise ValueError("total and total_header, expected one of them")
        return self


class NumberedPages(_Counted):
    """Pages have numbers."""

    type: Literal["page"]
    param: ParameterName = Field("page", description="Parameter that takes the number.")
    start: int = Field(1, ge=0, description="Number of the first page.")


class OffsetPages(_Counted):
    """A page begins after so many records."""

    type: Literal["offset"]
    param: ParameterName = Field("offset", description="Parameter that takes the number of records to pass.")
    start: int = Field(0, ge=0, description="Number of the first record.")


class CursorPages(Part):
    """A page, or its last record, names the next page by a word."""

    type: Literal["cursor"]
    param: ParameterName = Field("cursor", description="Parameter that takes the word.")
    next: Dotted | None = Field(None, description="Path in the answer to the next word; null at the end.")
    last: Dotted | None = Field(None, description="Path in the last record, where that is the next word.")
    more: Dotted | None = Field(None, description="Path in the answer to whether there is more.")
    size_param: ParameterName | None = Field(None, description="Parameter that takes the page's size.")
    size: int | None = Field(None, ge=1, description="Records asked for on each page.")

    @model_validator(mode="after")
    def _complete(self) -> CursorPages:
        if (self.next is None) == (self.last is None):
            raise ValueError("nothing, or two things, say the next word, expected `next` or `last`")
        if self.size_param and not self.size:
            raise ValueError("size_param without size, expected both")
        return self


class LinkPages(Part):
    """The header Link has the next page's address."""

    type: Literal["link"]
    size_param: ParameterName | None = Field(None, description="Parameter that takes the page's size.")
    size: int | None = Field(None, ge=1, description="Records asked for on each page.")


class NextUrlPages(Part):
    """The answer has the next page's address in it."""

    type: Literal["next_url"]
    next: Dotted = Field("next", description="Path in the answer to the address; null at the end.")
    size_param: ParameterName | None = Field(None, description="Parameter that takes the page's size.")
    size: int | None = Field(None, ge=1, description="Records asked for on each page.")


Pages = Annotated[
    SinglePages | NumberedPages | OffsetPages | CursorPages | LinkPages | NextUrlPages,
    Field(discriminator="type"),
]


class IncrementalKeys(Part):
    """Only what is new is asked for, by the highest value seen."""

    param: ParameterName = Field(description="Parameter that takes the highest value seen.")
    field: Dotted = Field(description="Path in a record to that value: a time or a number that only grows.")
    start: str | int | float | None = Field(None, description="What the first run asks for; default all.")
    lookback: float = Field(
        0, ge=0, allow_inf_nan=False, description="Ask again for what is so far back: seconds, or numbers."
    )


class RestSource(SourceSettings):
    """An API over HTTP that answers with JSON."""

    templated: ClassVar[tuple[str, ...]] = ("url", "ca_file")
    type: Literal["rest"]
    url: Url = Field(description="Base address of the API. ${NAME} is a variable.")
    auth: Auth | None = Field(None, description="Who we are to it; goes to the host of `url` only.")
    headers: dict[HeaderName, HeaderText] = Field(default_factory=dict, description="Sent with each request.")
    headers_env: dict[HeaderName, VariableName] = Field(
        default_factory=dict, description="Headers whose value is secret: header, name of the variable."
    )
    pagination: Pages | None = Field(None, description="For all tables that have none of their own.")
    allow_private: bool = Field(
        False, description="Whether the host of `url` may be in a private network; redirects may not."
    )
    ca_file: PathTemplate | None = Field(
        None, description="Certificates (PEM) of an authority of your own, trusted beside the usual ones."
    )
    timeout_s: float = Field(
        30, gt=0, le=600, description="Longest silence. A whole answer may take ten times as long."
    )
    tries: int = Field(5, ge=1, le=20, description="Requests for one page, the first among them.")
    wait_s: float = Field(
        300, ge=0, le=3600, description="Longest wait for one page in all; a longer Retry-After ends the run."
    )
    requests_per_s: float | None = Field(None, gt=0, le=1000, description="Most requests in a second.")
    concurrency: int = Field(
        1, ge=1, le=16, description="Pages asked for at once, where pages are counted and a total is known."
    )
    max_response_mb: int = Field(64, ge=1, le=1024, description="Longest answer, unpacked.")

    @property
    def shown(self) -> str:
        """The address as it is written."""
        return self.url

    @field_validator("headers")
    @classmethod
    def _no_secret_header(cls, headers: dict[str, str]) -> dict[str, str]:
        if any(name.lower() in _SECRET_HEADERS for name in headers):
            raise ValueError(
                "a header that holds a secret, expected `auth:` or `headers_env:` with a variable's name"
            )
        return headers

    @model_validator(mode="after")
    def _secrets_are_not_sent_in_the_open(self) -> RestSource:
        problem = _in_the_open(self, self.url)
        if problem:
            raise ValueError(problem)
        return self


def _in_the_open(source: RestSource, url: str) -> str | None:
    has_secret = bool(source.headers_env) or (source.auth is not None and source.auth.type != "none")
    addresses = [url, *([source.auth.token_url] if isinstance(source.auth, OAuth2Auth) else [])]
    if has_secret and not source.allow_private and any(one.startswith("http://") for one in addresses):
        return "credentials would travel over http:// in the open, expected https://"
    return None


class RestTableDocument(TableDocument):
    """One table: what is asked of the API, and where the records are in its answers."""

    path: str = Field(description="Below the source's `url`; {name} is filled in from `path_params`.")
    path_params: dict[str, str | int] = Field(
        default_factory=dict, description="Values in the path; escaped."
    )
    method: Literal["GET", "POST", "PUT", "DELETE"] = "GET"
    params: dict[ParameterName, Scalar | list[Scalar]] = Field(
        default_factory=dict, description="Query parameters; escaped."
    )
    body: dict[str, Any] | None = Field(None, description="Sent as JSON.")
    parameters_in: Literal["query", "body"] = Field(
        "query", description="Where the parameters of `pagination` and `incremental` go."
    )
    records: Dotted | None = Field(
        None, description="Dotted path to the list of records; default: the answer is the list."
    )
    single: bool = Field(False, description="Whether what is there is one record, not a list.")
    pagination: Pages | None = Field(None, description="How one gets from page to page; default one page.")
    incremental: IncrementalKeys | None = None

    @property
    def delivered_as(self) -> str:
        """The path."""
        return self.path

    @property
    def technology(self) -> str:
        """An API."""
        return "rest"

    @property
    def disposition(self) -> Disposition:
        """What is read whole replaces what was there; what is new joins it, by key where there is one."""
        if "load" in self.model_fields_set:
            return self.load
        if self.incremental is None:
            return "replace"
        return "merge" if self.contract and self.contract.key else "append"

    @field_validator("path")
    @classmethod
    def _path(cls, value: str) -> str:
        if "?" in value or "#" in value or not value.isprintable() or "://" in value:
            raise ValueError("not a path below the source's url, expected one such as orders/{shop}/items")
        if any(part in (".", "..") for part in value.split("/")):
            raise ValueError("the path leads out of itself, expected no . and .. in it")
        return value

    @field_validator("path_params")
    @classmethod
    def _values(cls, values: dict[str, str | int]) -> dict[str, str | int]:
        if any(str(value) in ("", ".", "..") for value in values.values()):
            raise ValueError("a value is empty, . or .., expected one that stays at its place in the path")
        return values

    @model_validator(mode="after")
    def _fits_together(self) -> RestTableDocument:
        named = set(_PLACE.findall(self.path))
        if named != set(self.path_params):
            odd = ", ".join(sorted(named ^ set(self.path_params)))
            raise ValueError(f"{odd} stands in path or in path_params only, expected each in both")
        if self.single and self.pagination is not None and self.pagination.type != "none":
            raise ValueError("single: true with pagination, expected one record or many pages")
        if self.incremental is not None and self.disposition in ("replace", "snapshot"):
            raise ValueError(
                f"load: {self.load} with incremental, which brings only what is new, expected append or merge"
            )
        if (self.body is not None or self.parameters_in == "body") and self.method == "GET":
            raise ValueError("a body with method: GET, expected POST")
        return self


class RestKind(SourceKind[RestSource, RestTableDocument]):
    """APIs over HTTP: JSON pages, whole or only what is new."""

    settings = RestSource
    table = RestTableDocument

    def declare(self, document: PipelineDocument, name: str, project_root: Path) -> rest.RestTable:
        """Say what is asked for, and how one gets from page to page."""
        from datops_assets.ingestion import rest

        source, table = self.parts(document, name)
        incremental = table.incremental
        pages = table.pagination if table.pagination or table.single else source.pagination
        return rest.RestTable(
            source=document.pipeline,
            name=name,
            disposition=table.disposition,
            rename=table.rename,
            path=table.path,
            path_params=table.path_params,
            method=table.method,
            params=table.params,
            body=table.body,
            parameters_in=table.parameters_in,
            records=table.records,
            single=table.single,
            pagination=_pagination(pages),
            incremental=rest.Incremental(**incremental.model_dump()) if incremental else None,
        )

    def open(self, document: PipelineDocument, project_root: Path) -> rest.RestSource:
        """Secrets are read when a request is made, connections opened when something is asked."""
        from datops_assets.ingestion import rest

        source = document.source
        assert isinstance(source, RestSource)
        url = fill_in(source.url)
        if problem := _url_problem(url) or _in_the_open(source, url):
            raise DeclarationError([f"source.url with its variables filled in: {problem}"])
        return rest.RestSource(
            rest.Api(
                url=url,
                credentials=_credentials(source.auth, project_root),
                headers=source.headers,
                secret_headers={
                    header: _secret(variable, project_root) for header, variable in source.headers_env.items()
                },
                allow_private=source.allow_private,
                ca_file=resolve_path(source.ca_file, project_root) if source.ca_file else None,
                timeout_s=source.timeout_s,
                tries=source.tries,
                wait_s=source.wait_s,
                requests_per_s=source.requests_per_s,
                concurrency=source.concurrency,
                max_response_bytes=source.max_response_mb << 20,
            )
        )


def _pagination(pages: Pages | None) -> rest.Pagination:
    from datops_assets.ingestion import rest

    if isinstance(pages, NumberedPages | OffsetPages):
        values = pages.model_dump(exclude={"type", "total"})
        kind = rest.PageNumber if isinstance(pages, NumberedPages) else rest.Offset
        return kind(**values, total_path=pages.total)
    if isinstance(pages, CursorPages):
        return rest.Cursor(**pages.model_dump(exclude={"type"}))
    if isinstance(pages, LinkPages):
        return rest.LinkHeader(**pages.model_dump(exclude={"type"}))
    if isinstance(pages, NextUrlPages):
        return rest.NextUrl(**pages.model_dump(exclude={"type"}))
    return rest.SinglePage()


def _credentials(auth: Auth | None, project_root: Path) -> rest.Credentials | None:
    from datops_assets.ingestion import rest

    if isinstance(auth, BasicAuth):
        return rest.Basic(auth.user, _secret(auth.password_env, project_root))
    if isinstance(auth, BearerAuth):
        return rest.Bearer(_secret(auth.token_env, project_root))
    if isinstance(auth, ApiKeyAuth):
        return rest.ApiKey(auth.name, _secret(auth.key_env, project_root), auth.key_in)
    if isinstance(auth, OAuth2Auth):
        return rest.ClientCredentials(
            fill_in(auth.token_url),
            _secret(auth.client_id_env, project_root),
            _secret(auth.client_secret_env, project_root),
            auth.scope,
            auth.secret_in,
        )
    return None


def _secret(variable: str, project_root: Path) -> rest.Secret:
    return partial(_read_secret, variable, project_root)


def _read_secret(variable: str, project_root: Path) -> str:
    from datops_assets.config.settings import read_secret

    return read_secret(variable, project_root).get_secret_value()
