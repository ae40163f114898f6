"""Credentials that are wrong, taken back or expired, on an S3 server that looks at them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
import httpx
import pytest

from datops_assets.errors import SourceRefusedError
from datops_assets.ingestion import FileSource, FileTable, list_loads, load_table
from datops_assets.ingestion.remote import RemoteStore
from datops_assets_tests.conftest import TestWarehouse
from datops_assets_tests.ingestion.stores.servers import BUCKET, HOST, S3, s3_server, web_server

URL = f"s3://{BUCKET}/in"
TABLE = FileTable(source="far", name="orders", root=URL, pattern="*.csv")
READS = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": ["s3:*"], "Resource": "*"}],
}


@dataclass
class Guarded:
    """An S3 server that knows one user, and lets in nobody else."""

    s3: S3
    iam: Any
    key: str
    secret: str

    def source(self, **changes: str) -> FileSource:
        options = {**self.s3.options, "key": self.key, "secret": self.secret, **changes}
        return FileSource(store=RemoteStore(URL, options))

    @contextmanager
    def looking(self) -> Iterator[None]:
        """It looks at who asks from here on; moto's own switch."""
        self._ask_everybody(after=0)
        try:
            yield
        finally:
            self._ask_everybody(after=1_000_000)

    def _ask_everybody(self, after: int) -> None:
        switch = f"http://{HOST}:{self.s3.port}/moto-api/reset-auth"
        assert httpx.post(switch, content=str(after), trust_env=False).is_success


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    with s3_server() as s3:
        iam = boto3.client(
            "iam", endpoint_url=f"http://{HOST}:{s3.port}", region_name="us-east-1",
            aws_access_key_id="testing", aws_secret_access_key="testing-secret",
        )  # fmt: skip
        iam.create_user(UserName="reader")
        iam.put_user_policy(UserName="reader", PolicyName="reads", PolicyDocument=json.dumps(READS))
        made = iam.create_access_key(UserName="reader")["AccessKey"]
        s3.put("in/1.csv", b"id\n1\n")
        yield Guarded(s3, iam, made["AccessKeyId"], made["SecretAccessKey"])


def refused(source: FileSource, *secrets: str) -> str:
    """One sentence, without a secret, that is not tried again."""
    with source:
        said = source.check(TABLE)
        with pytest.raises(SourceRefusedError) as raised:
            source.list_units(TABLE)
    for sentence in (said.message, str(raised.value)):
        assert "refuses us" in sentence
        assert "check the credentials" in sentence
        assert "\n" not in sentence
        assert not any(secret in sentence for secret in secrets)
    assert not said.ok
    return str(raised.value)


def test_the_right_credentials_are_let_in(guarded: Guarded) -> None:
    with guarded.looking(), guarded.source() as source:
        assert source.check(TABLE).ok
        assert [unit.path for unit in source.list_units(TABLE)] == ["1.csv"]


@pytest.mark.parametrize("wrong", ["key", "secret"])
def test_wrong_credentials_are_one_sentence(guarded: Guarded, wrong: str) -> None:
    with guarded.looking():
        refused(guarded.source(**{wrong: "wr0ng-and-secret"}), "wr0ng-and-secret", guarded.secret)


def test_a_user_without_the_right_to_read_is_told_so(guarded: Guarded) -> None:
    guarded.iam.create_user(UserName="stranger")
    made = guarded.iam.create_access_key(UserName="stranger")["AccessKey"]
    with guarded.looking():
        refused(guarded.source(key=made["AccessKeyId"], secret=made["SecretAccessKey"]))


def test_credentials_taken_back_between_two_runs_lose_nothing(
    guarded: Guarded, warehouse: TestWarehouse
) -> None:
    made = guarded.iam.create_access_key(UserName="reader")["AccessKey"]
    keys = {"key": made["AccessKeyId"], "secret": made["SecretAccessKey"]}
    with guarded.source(**keys) as source, guarded.looking():
        assert load_table(warehouse.conn, source, TABLE, batch="1").rows_added == 1
    guarded.s3.put("in/2.csv", b"id\n2\n")
    guarded.iam.delete_access_key(UserName="reader", AccessKeyId=made["AccessKeyId"])
    with guarded.source(**keys) as source, guarded.looking(), pytest.raises(SourceRefusedError):
        load_table(warehouse.conn, source, TABLE, batch="2")
    assert [load.state for load in list_loads(warehouse.conn, "far")] == ["loaded"]
    with guarded.source() as source, guarded.looking():
        assert load_table(warehouse.conn, source, TABLE, batch="3").rows_added == 1


EXPIRED = (
    b'<?xml version="1.0" encoding="UTF-8"?>'
    b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
)


def test_a_temporary_token_that_has_expired_is_refused_like_a_wrong_one() -> None:
    """As S3 itself answers it: status 400, and the code in the body."""
    with web_server() as web:
        web.error = (400, EXPIRED)
        options = S3(web.port, None).options | {"token": "t0ken-that-was-good"}
        refused(FileSource(store=RemoteStore(URL, options)), "t0ken-that-was-good", "testing-secret")
