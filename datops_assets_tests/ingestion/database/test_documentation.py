"""The page on databases says what the code does."""

from __future__ import annotations

from pathlib import Path

from datops_assets.ingestion.database import mysql, postgres_columns

PAGE = Path(__file__).parents[3] / "docs/sources/databases.md"


def test_the_printed_types_are_those_of_the_code() -> None:
    """Both tables, word by word."""
    page = PAGE.read_text(encoding="utf-8")
    assert postgres_columns.print_types() in page
    assert mysql.print_types() in page
