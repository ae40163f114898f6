"""What must be blanked before text is shown, and what must stay readable."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datops_assets.telemetry import redact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "postgresql://datops:p%40ss@db:5432/x?sslmode=require",
            "postgresql://datops:***@db:5432/x?sslmode=require",
        ),
        ("postgresql://u:p@ss@db/x", "postgresql://u:***@db/x"),
        ("redis://:only@cache:6379", "redis://:***@cache:6379"),
        ("host=db password=abc user=u", "host=db password=*** user=u"),
        ("host=db password='a b' user=u", "host=db password=*** user=u"),
        ('{"password": "abc", "user": "u"}', '{"password": ***, "user": "u"}'),
        ("SHOP_DB_PASSWORD=abc", "SHOP_DB_PASSWORD=***"),
        ("aws_secret_access_key: abc", "aws_secret_access_key: ***"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("https://h/x?token=abc&page=2", "https://h/x?token=***&page=2"),
    ],
)
def test_a_secret_is_blanked_and_the_rest_stays(text, shown):
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        'FATAL: password authentication failed for user "shop"',
        "orders.yaml:12: unknown key 'colums', expected columns",
        "see https://example.com/a/b@c",
        "customer@example.com is no token",
    ],
)
def test_a_sentence_about_secrets_stays_as_it_is(text):
    assert redact(text) == text


@given(st.text(min_size=1).filter(lambda secret: "*" not in secret), st.text(), st.text())
def test_a_known_secret_never_survives(secret, before, after):
    """Whatever stands around it."""
    assert secret not in redact(before + secret + after, [secret])
