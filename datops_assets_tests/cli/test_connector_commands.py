"""`datops connector` and `datops pipeline create`: from a database to a document that runs unedited."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from datops_assets.cli import _app
from datops_assets.components.documents import read_documents
from datops_assets.components.runner import run_pipeline
from datops_assets.errors import DeclarationError


def datops(*arguments: str) -> tuple[int, str]:
    """Run the command here; returns its exit code and what it printed."""
    result = CliRunner().invoke(_app(), [*arguments])
    return result.exit_code, result.output


@pytest.fixture
def shop(project: Path) -> Path:
    """A project with a database beside it."""
    with sqlite3.connect(project / "Shop DB.db") as conn:
        conn.executescript(
            """
            create table Customer (CustomerId integer primary key, Name varchar(20) not null, "E-Mail" text);
            create table "Order Line" (Id integer primary key, CustomerId integer references Customer (CustomerId),
                                       Amount decimal(10,2), At timestamp, boss integer references "Order Line" (Id));
            insert into Customer values (1, 'Ada', 'ada@example.org');
            insert into "Order Line" values (1, 1, '1.50', '2026-01-31 12:00:00', null), (2, 9, 'much', null, 1);
            """
        )
    conn.close()
    return project


def test_a_document_made_of_a_database_runs_unedited(shop: Path) -> None:
    """Types, keys, references and names are its own; what is not of its declared type waits in the quarantine."""
    code, said = datops("pipeline", "create", "--from", "sqlite:///Shop DB.db")
    assert (code, "next: datops validate" in said) == (0, True)
    path = shop / "datops_assets/defs/sources/shop_db/pipeline.yaml"
    (loaded,) = read_documents(path, shop)
    result = run_pipeline(loaded.document, shop)
    assert (result.success, result.problems) == (True, [])
    counts = {table.table: (table.rows_passed, table.rows_quarantined) for table in result.tables}
    assert counts == {"customer": (1, 0), "order_line": (1, 1)}
    code, said = datops("pipeline", "create", "--from", "sqlite:///Shop DB.db")
    assert (code, "is there already" in said) == (2, True)
    code, said = datops("connector", "test", "--config", str(path), "--json")
    assert code == 0
    assert {row["table"]: row["reachable"] for row in json.loads(said)} == {
        "shop_db.customer": "yes",
        "shop_db.order_line": "yes",
    }


def test_only_tables_of_a_pattern(shop: Path) -> None:
    """And none of it is an error."""
    assert (
        datops("pipeline", "create", "--from", "sqlite:///Shop DB.db", "--include", "Cust*", "--out", "a")[0]
        == 0
    )
    (loaded,) = read_documents(shop / "a/pipeline.yaml", shop)
    assert list(loaded.document.tables) == ["customer"]
    assert datops("pipeline", "create", "--from", "sqlite:///Shop DB.db", "--include", "x*")[0] == 2


def test_a_password_in_the_url_is_refused_with_the_way_out(shop: Path) -> None:
    """On the command line, and in a document with its line; neither repeats it."""
    code, said = datops("pipeline", "create", "--from", "postgresql://me:hunter2@localhost/db")
    assert (code, "password_env: NAME" in said, "hunter2" in said) == (2, True, False)
    document = shop / "p.yaml"
    document.write_text(
        "pipeline: a\nteam: b\nsource:\n  type: database\n  url: postgresql://me:hunter2@localhost/db\n"
        "tables: {t: {table: t}}\n"
    )
    with pytest.raises(DeclarationError) as raised:
        read_documents(document, shop)
    assert "p.yaml:5: " in str(raised.value)
    assert "password_env" in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_a_source_that_does_not_answer_is_told_table_by_table(shop: Path) -> None:
    """Exit 1, and one sentence."""
    document = shop / "p.yaml"
    document.write_text(
        "pipeline: a\nteam: b\nsource: {type: database, url: 'sqlite:///gone.db'}\ntables: {t: {table: t}}\n"
    )
    code, said = datops("connector", "test", "--config", str(document))
    assert code == 1
    assert "there is no file" in said


def test_every_kind_of_source_is_listed(project: Path) -> None:
    """With what it is for."""
    code, said = datops("connector", "list", "--json")
    assert code == 0
    assert {"files", "database"} <= {row["type"] for row in json.loads(said)}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("load: append", "expected a `cursor:`"),
        ("cursor: at\n    load: replace", "expected merge or append"),
        ("lookback: 1h", "expected `cursor:`"),
        ("cursor: at\n    lookback: soon", "expected 30m"),
        ("columns: [a]\n    exclude: [b]", "expected one of them"),
    ],
)
def test_keys_that_contradict_each_other_are_named_with_their_line(
    project: Path, keys: str, words: str
) -> None:
    """Before anything is read."""
    document = project / "p.yaml"
    document.write_text(
        "pipeline: a\nteam: b\nsource: {type: database, url: 'sqlite:///a.db'}\n"
        f"tables:\n  t:\n    table: t\n    {keys}\n"
    )
    with pytest.raises(DeclarationError) as raised:
        read_documents(document, project)
    assert str(raised.value).startswith("p.yaml:")
    assert words in str(raised.value)
