"""The Chinook sample database, from PostgreSQL and from MariaDB: equal silver tables, types and bytes included."""

from __future__ import annotations

import os
import re
from pathlib import Path

import psycopg
import pytest

from datops_assets.components.documents import read_documents
from datops_assets.components.runner import run_pipeline
from datops_assets.components.scaffold import from_database, write
from datops_assets.resources.warehouse import Warehouse
from datops_assets_tests.ingestion.database.conftest import MariaShop

CHINOOK = Path(os.environ.get("CHINOOK_DIR", "no-such-folder"))
TABLES = 11
ROWS = 15_607


def statements(path: Path) -> list[str]:
    """The statements of MySQL's script, those that make the database left out."""
    text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = [part.strip() for part in re.split(r";\s*\n", text)]
    return [
        part for part in found if part and not re.match(r"(drop database|create database|use) ", part, re.I)
    ]


@pytest.mark.skipif(not CHINOOK.is_dir(), reason="CHINOOK_DIR names no folder with the Chinook scripts")
def test_two_databases_with_the_same_data_give_the_same_silver(
    project: Path, shop_db: Warehouse, maria: MariaShop, database: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The document is made by introspection and runs unedited."""
    script = (CHINOOK / "Chinook_PostgreSql.sql").read_text(encoding="utf-8")
    with psycopg.connect(shop_db.url, autocommit=True) as conn:
        conn.execute(script.partition("\\c chinook;")[2])  # type: ignore[call-overload]
    # The script means its backslashes: with MySQL's default they would escape what follows.
    maria.execute("set sql_mode = 'NO_BACKSLASH_ESCAPES'", *statements(CHINOOK / "Chinook_MySql.sql"))
    # PostgreSQL takes N'Edinburgh ' for a char and drops its blank as it stores it; MariaDB keeps it.
    maria.execute(
        "update Customer set City = trim(City)", "update Invoice set BillingCity = trim(BillingCity)"
    )
    monkeypatch.setenv("POSTGRES_SHOP_URL", shop_db.url)
    monkeypatch.setenv("MARIA_SHOP_URL", maria.url)
    for name, variable in (("one", "POSTGRES_SHOP_URL"), ("two", "MARIA_SHOP_URL")):
        _, document = from_database(f"${{{variable}}}", project, name=name)
        write(project / name, document)
        (loaded,) = read_documents(project / name / "pipeline.yaml", project)
        result = run_pipeline(loaded.document, project)
        assert (result.success, result.problems) == (True, [])
        assert sum(table.rows_quarantined for table in result.tables) == 0
        assert (len(result.tables), sum(table.rows_passed for table in result.tables)) == (TABLES, ROWS)
    with database.connect() as conn:
        assert silver(conn, "one") == silver(conn, "two")


def silver(conn: psycopg.Connection[tuple[object, ...]], source: str) -> dict[str, tuple[object, ...]]:
    """Columns with their types, and a hash over all rows, of each table."""
    found: dict[str, tuple[object, ...]] = {}
    names = conn.execute(
        "select relname::text from pg_class where relnamespace = 'silver'::regnamespace and relkind = 'r'"
        " and starts_with(relname, %s)",
        (f"{source}_",),
    ).fetchall()
    for (name,) in names:
        columns = conn.execute(
            "select attname::text, format_type(atttypid, atttypmod) from pg_attribute"
            " where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped and attname not like '\\_%%'"
            " order by attname",
            (f"silver.{name}",),
        ).fetchall()
        row = ", ".join(f'"{column}"' for column, _ in columns)
        digest = conn.execute(
            f"select count(*), md5(string_agg(t::text, E'\\n' order by t::text collate \"C\"))"  # type: ignore[call-overload]
            f" from (select {row} from silver.{name}) as t"
        ).fetchone()
        found[str(name).removeprefix(f"{source}_")] = (columns, digest)
    return found
