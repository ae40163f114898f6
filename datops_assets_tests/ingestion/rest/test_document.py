"""The document: what each key becomes, and a sentence for each likely mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from datops_assets.components.declarations import read_declared
from datops_assets.components.documents import read_documents
from datops_assets.components.sources import declared_table, open_source
from datops_assets.components.sources.rest import RestTableDocument
from datops_assets.errors import DeclarationError
from datops_assets.ingestion import rest

GOOD = """\
pipeline: shop
team: commerce
source:
  type: rest
  url: https://api.example.com/v1
  auth: {type: bearer, token_env: SHOP_TOKEN}
  headers: {X-Tenant: north}
  pagination: {type: cursor, next: meta.next}
tables:
  orders:
    path: shops/{shop}/orders
    path_params: {shop: berlin}
    records: data
    incremental: {param: since, field: updated_at, lookback: 3600}
    contract:
      key: [id]
      columns:
        id: {type: bigint}
  rates:
    path: rates
    pagination: {type: page, size: 50, size_param: per_page, total: meta.total}
  settings:
    path: settings
    single: true
"""


def declared(tmp_path: Path, text: str, table: str) -> rest.RestTable:
    (tmp_path / "pipeline.yaml").write_text(text)
    (loaded,) = read_documents(tmp_path / "pipeline.yaml", tmp_path)
    found = declared_table(loaded.document, table, tmp_path)
    assert isinstance(found, rest.RestTable)
    return found


def test_a_table_has_the_pages_of_its_source_unless_it_has_its_own(tmp_path: Path) -> None:
    assert declared(tmp_path, GOOD, "orders").pagination == rest.Cursor(next="meta.next")
    assert declared(tmp_path, GOOD, "rates").pagination == rest.PageNumber(
        size_param="per_page", size=50, total_path="meta.total"
    )
    assert declared(tmp_path, GOOD, "settings").pagination == rest.SinglePage()


def test_what_is_read_whole_replaces_and_what_is_new_joins(tmp_path: Path) -> None:
    found = {name: declared(tmp_path, GOOD, name).disposition for name in ("orders", "rates")}
    assert found == {"orders": "merge", "rates": "replace"}
    stated = GOOD.replace("    path: rates\n", "    path: rates\n    load: append\n")
    assert declared(tmp_path, stated, "rates").disposition == "append"


@pytest.mark.parametrize(
    ("pages", "expected"),
    [
        ("{type: none}", rest.SinglePage()),
        ("{type: page, start: 0, stop: short, size: 5}", rest.PageNumber(start=0, stop="short", size=5)),
        (
            "{type: offset, param: skip, size_param: take, size: 5, total_header: X-Total}",
            rest.Offset(param="skip", size_param="take", size=5, total_header="X-Total"),
        ),
        (
            "{type: cursor, param: after, last: id, more: has_more}",
            rest.Cursor("after", None, "id", "has_more"),
        ),
        ("{type: link}", rest.LinkHeader()),
        ("{type: next_url, next: links.next}", rest.NextUrl("links.next")),
    ],
)
def test_each_kind_of_pages(tmp_path: Path, pages: str, expected: rest.Pagination) -> None:
    text = GOOD.replace("{type: cursor, next: meta.next}", pages)
    assert declared(tmp_path, text, "orders").pagination == expected


@pytest.mark.parametrize(
    "auth",
    [
        "{type: none}",
        "{type: basic, user: ada, password_env: A}",
        "{type: bearer, token_env: A}",
        "{type: api_key, name: key, key_env: A, key_in: query}",
        "{type: oauth2, token_url: 'https://login.example.com/t', client_id_env: A, client_secret_env: A, scope: a b}",
    ],
)
def test_each_kind_of_credentials_opens_without_reading_a_secret(tmp_path: Path, auth: str) -> None:
    text = GOOD.replace("{type: bearer, token_env: SHOP_TOKEN}", auth)
    (tmp_path / "pipeline.yaml").write_text(text)
    (loaded,) = read_documents(tmp_path / "pipeline.yaml", tmp_path)
    open_source(loaded.document, tmp_path).close()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("https://api.example.com/v1", "ftp://x", "source.url: not an address, expected one such as https://"),
        ("https://api.example.com/v1", "https://ada:pw@x", "source.url: a user stands in the address"),
        ("https://api.example.com/v1", "https://x/?key=1", "source.url: parameters stand in the address"),
        ("https://api.example.com/v1", "http://x", "credentials would travel over http:// in the open"),
        ("https://api.example.com/v1", "https://x:99999", "source.url: not an address"),
        ("token_env: SHOP_TOKEN", "token: s3cret", "token"),
        ("token_env: SHOP_TOKEN", "token_env: 's3cret value'", "not the name of a variable"),
        ("type: bearer", "type: digest", "source.auth"),
        ("X-Tenant: north", "Authorization: s3cret", "a header that holds a secret, expected `auth:`"),
        ("X-Tenant: north", "'X Tenant': north", "not the name of a header"),
        ("X-Tenant: north", "Host: north", "a header that the connection itself sets"),
        ("next: meta.next", "nxet: meta.next", "nxet"),
        ("next: meta.next", "param: c", "expected `next` or `last`"),
        ("type: cursor, ", "type: pages, ", "source.pagination"),
        ("path: rates", "path: 'rates?x=1'", "not a path below the source's url"),
        ("path: rates", "path: ../rates", "the path leads out of itself"),
        ("{shop: berlin}", "{shop: ..}", "a value is empty, . or .."),
        ("{shop: berlin}", "{city: berlin}", "city, shop stands in path or in path_params only"),
        ("records: data", "records: data..x", "not a path, expected names joined by dots"),
        ("records: data", "load: replace", "load: replace with incremental"),
        ("records: data", "body: {a: 1}", "a body with method: GET, expected POST"),
        ("    single: true", "    single: true\n    pagination: {type: link}", "single: true with pagination"),
        ("size: 50, size_param", "size_param", "size_param without size"),
        ("size: 50,", "size: 0,", "size"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_with_its_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in GOOD
    (tmp_path / "pipeline.yaml").write_text(GOOD.replace(old, new, 1))
    problems = read_declared(tmp_path, [tmp_path / "pipeline.yaml"]).problems
    assert problems
    assert all(problem.startswith("pipeline.yaml:") for problem in problems)
    assert said in "\n".join(problems)
    assert "s3cret" not in "\n".join(problems).replace("SHOP", "")


def test_a_variable_in_the_address_is_looked_at_once_it_is_filled_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_API", "http://api.example.com")
    (tmp_path / "pipeline.yaml").write_text(GOOD.replace("https://api.example.com/v1", "${SHOP_API}/v1"))
    (loaded,) = read_documents(tmp_path / "pipeline.yaml", tmp_path)
    with pytest.raises(DeclarationError, match="in the open, expected https"):
        open_source(loaded.document, tmp_path)


def test_the_icon_and_the_shown_place() -> None:
    table = RestTableDocument(path="orders")
    assert (table.technology, table.delivered_as) == ("rest", "orders")
