"""Who we are: put on requests to the API's own host only, and seen nowhere else."""

from __future__ import annotations

import base64
import logging
import time
from typing import Any

import httpx
import pytest

from datops_assets.errors import SourceRefusedError, TerminalError
from datops_assets.ingestion import rest
from datops_assets_tests.ingestion.rest.conftest import RestLab
from datops_assets_tests.ingestion.rest.server import Api, Asked, Reply, running

SECRET = "s3cret-Value"


def secret() -> str:
    return SECRET


CREDENTIALS = {
    "basic": rest.Basic("ada", secret),
    "bearer": rest.Bearer(secret),
    "header": rest.ApiKey("X-Api-Key", secret),
    "query": rest.ApiKey("api_key", secret, "query"),
}


def has_secret(asked: Asked) -> bool:
    said = [asked.params.get("api_key"), asked.headers.get("x-api-key")]
    kind, _, given = asked.headers.get("authorization", "").partition(" ")
    said.append(base64.b64decode(given).decode().removeprefix("ada:") if kind == "Basic" else given)
    return SECRET in said


def guarded(answer: Any) -> Any:
    return lambda asked: answer(asked) if has_secret(asked) else Reply(status=401)


@pytest.mark.parametrize("kind", CREDENTIALS)
def test_each_kind_lets_us_in(lab: RestLab, kind: str) -> None:
    lab.api.answer = guarded(lambda asked: [{"id": 1}])
    lab.connect(credentials=CREDENTIALS[kind])
    assert lab.load().rows_added == 1


def test_secret_headers_and_plain_ones(lab: RestLab) -> None:
    lab.api.answer = lambda asked: [{"id": asked.headers["x-tenant"] + asked.headers["x-team"]}]
    lab.connect(headers={"X-Tenant": "a"}, secret_headers={"X-Team": secret})
    lab.load()
    assert lab.ids() == ["a" + SECRET]


@pytest.mark.parametrize("kind", CREDENTIALS)
def test_a_secret_is_shown_nowhere(lab: RestLab, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither by what is printed of the objects, nor in logs, errors, or the catalogue, whatever the API does."""
    caplog.set_level(logging.DEBUG)
    lab.connect(credentials=CREDENTIALS[kind], secret_headers={"X-Team": secret})

    def following(asked: Asked) -> object:
        # Many APIs repeat all parameters in the address of the next page, the key among them.
        more = f"{lab.api.url}/orders?page={len(lab.api.asked)}&api_key={SECRET}"
        return {"items": [{"id": len(lab.api.asked)}], "next": more}

    lab.api.answer = following
    lab.declare(
        records="items",
        pagination=rest.NextUrl(),
        incremental=rest.Incremental("since", "id"),
        limits=rest.ChunkLimits(pages=1),
    )
    lab.connect(wait_s=0.1)
    lab.api.answer = lambda asked: following(asked) if len(lab.api.asked) < 4 else Reply(status=403)
    error = lab.refused().error
    entries = lab.loads()
    assert len(entries) == 4
    said = [str(error), repr(lab.declared), repr(lab.table), repr(CREDENTIALS[kind])]
    said += [str(entry) for entry in entries] if kind == "query" else []
    with lab.source() as source:
        said += [source.check(lab.table).message, repr(source), repr(source.list_units(lab.table))]
    said += [record.getMessage() for record in caplog.records if record.name.startswith("datops")]
    assert not [text for text in said if SECRET in text]


def test_libraries_log_no_secret(lab: RestLab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for credentials in CREDENTIALS.values():
        lab.api.answer = lambda _: [{"id": 1}]
        lab.connect(credentials=credentials)
        lab.load()
    encoded = base64.b64encode(f"ada:{SECRET}".encode()).decode()
    assert not [r for r in caplog.records if SECRET in r.getMessage() or encoded in r.getMessage()]


@pytest.mark.parametrize("kind", CREDENTIALS)
def test_no_credentials_across_a_redirect_to_another_origin(lab: RestLab, kind: str) -> None:
    """Another port is another origin; the private network behind the API's own name is allowed."""
    with running() as other:
        other.answer = lambda _: [{"id": 1}]
        lab.api.answer = lambda _: Reply(status=307, headers={"Location": f"{other.url}/elsewhere"})
        lab.connect(
            credentials=CREDENTIALS[kind], headers={"X-Tenant": "a"}, secret_headers={"X-Team": secret}
        )
        lab.load()
        (asked,) = other.asked
    assert not has_secret(asked)
    assert {"x-team", "x-tenant", "authorization"}.isdisjoint(asked.headers)


@pytest.mark.parametrize("bad", ["two\r\nlines", "smörgås"])
def test_a_secret_that_no_header_can_carry_is_not_shown(lab: RestLab, bad: str) -> None:
    lab.connect(credentials=rest.Bearer(lambda: bad))
    error = str(lab.refused().error)
    assert "no header can carry" in error
    assert bad not in error


def test_a_variable_that_is_not_set_is_said_by_name(lab: RestLab) -> None:
    def unset() -> str:
        raise TerminalError("variable SHOP_TOKEN is not set")

    lab.connect(credentials=rest.Bearer(unset))
    with lab.source() as source:
        assert source.check(lab.table).message.endswith("variable SHOP_TOKEN is not set")


class TokenServer:
    """Gives out tokens t1, t2, … and answers with records where the newest one is shown."""

    def __init__(self, api: Api, lasts_s: object = 3600) -> None:
        self.given = 0
        self.lasts_s = lasts_s
        self.forms: list[Asked] = []
        self.good: set[str] = set()
        api.answer = self.answer

    def answer(self, asked: Asked) -> object:
        if asked.path == "/token":
            self.forms.append(asked)
            self.given += 1
            self.good = {f"Bearer t{self.given}"}
            return {"access_token": f"t{self.given}", "expires_in": self.lasts_s, "token_type": "Bearer"}
        if asked.headers.get("authorization") not in self.good:
            return Reply(status=401)
        page = asked.number("page", 1)
        return [{"id": page}] if page <= 5 else []


def client(lab: RestLab, **options: Any) -> rest.ClientCredentials:
    return rest.ClientCredentials(f"{lab.api.url}/token", lambda: "me", secret, **options)


def test_client_credentials_take_one_token_for_many_pages(lab: RestLab) -> None:
    tokens = TokenServer(lab.api)
    lab.connect(credentials=client(lab, scope="read"))
    lab.declare(pagination=rest.PageNumber())
    lab.load()
    assert (lab.ids(), tokens.given) == ([1, 2, 3, 4, 5], 1)
    (form,) = tokens.forms
    assert form.body == b"grant_type=client_credentials&scope=read"
    assert base64.b64decode(form.headers["authorization"].partition(" ")[2]) == f"me:{SECRET}".encode()


def test_client_credentials_in_the_body(lab: RestLab) -> None:
    tokens = TokenServer(lab.api)
    lab.connect(credentials=client(lab, place="body"))
    lab.load()
    assert f"client_id=me&client_secret={SECRET}".encode() in tokens.forms[0].body
    assert "authorization" not in tokens.forms[0].headers


def test_a_token_that_expires_in_the_middle_is_renewed_once(lab: RestLab) -> None:
    tokens = TokenServer(lab.api)
    honest = lab.api.answer

    def expiring(asked: Asked) -> object:
        if asked.number("page", 1) == 3 and tokens.given == 1:
            tokens.good = set()
        return honest(asked)

    lab.api.answer = expiring
    lab.connect(credentials=client(lab))
    lab.declare(pagination=rest.PageNumber())
    assert lab.load().failed == []
    assert (lab.ids(), tokens.given) == ([1, 2, 3, 4, 5], 2)


def test_a_token_is_renewed_before_it_expires(lab: RestLab) -> None:
    tokens = TokenServer(lab.api, lasts_s=0.4)  # used for half of that
    slow = lab.api.answer

    def answer(asked: Asked) -> object:
        time.sleep(0.1)
        return slow(asked)

    lab.api.answer = answer
    lab.connect(credentials=client(lab))
    lab.declare(pagination=rest.PageNumber())
    lab.load()
    assert tokens.given >= 3
    assert [a for a in lab.api.asked if a.path == "/orders" and a.headers["authorization"] == "Bearer t1"]
    assert lab.ids() == [1, 2, 3, 4, 5]


def test_a_token_that_is_refused_again_is_a_refusal(lab: RestLab) -> None:
    tokens = TokenServer(lab.api)
    honest = lab.api.answer
    lab.api.answer = lambda asked: honest(asked) if asked.path == "/token" else Reply(status=401)
    lab.connect(credentials=client(lab))
    assert "status 401: it does not know us" in str(lab.refused().error)
    assert tokens.given == 2


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(status=401), "the token server answers with status 401; check `auth.token_url`"),
        (Reply({"error": "s3cret"}), "the token server's answer has no `access_token`"),
        (Reply(raw=b"<html>"), "the token server's answer is no JSON object"),
        (Reply([]), "the token server's answer is no JSON object"),
        (Reply(status=503), "the token server answers with status 503"),
    ],
)
def test_a_token_server_that_misbehaves(lab: RestLab, reply: Reply, said: str) -> None:
    lab.api.answer = lambda _: reply
    lab.connect(credentials=client(lab))
    error = str(lab.refused().error)
    assert said in error
    assert "s3cret" not in error


def test_a_next_address_by_the_other_scheme_is_asked_by_ours() -> None:
    from datops_assets.ingestion.rest.reading import request_of

    table = rest.RestTable(source="s", name="t", path="orders")
    base = httpx.URL("https://api.example.com:8443/v1")
    request = request_of(base, table, {}, "http://api.example.com/v1/orders?page=2")
    assert str(request.url) == "https://api.example.com:8443/v1/orders?page=2"
    for other in (
        "https://api.example.com:1/v1/orders?page=2",
        "https://evil.example:8443/v1/orders",
        "ftp://x",
    ):
        with pytest.raises(SourceRefusedError):
            request_of(base, table, {}, other)
