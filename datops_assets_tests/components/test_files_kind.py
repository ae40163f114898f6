"""The keys of a files source: what a document may say, and what comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from datops_assets.components.documents import read_documents
from datops_assets.components.sources import declared_table, open_source
from datops_assets.components.sources.files import FilesKind
from datops_assets.errors import DeclarationError, TerminalError
from datops_assets.ingestion import FixedColumn

BASE: dict[str, Any] = {
    "pipeline": "shop",
    "team": "t",
    "source": {"type": "files", "path": "landing"},
    "tables": {"orders": {"files": "*.csv"}},
}


def read(folder: Path, source: dict[str, Any] | None = None, table: dict[str, Any] | None = None) -> Any:
    values = {**BASE, "source": {**BASE["source"], **(source or {})}}
    values["tables"] = {"orders": {**BASE["tables"]["orders"], **(table or {})}}
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump(values))
    return read_documents(path, folder)[0].document


@pytest.mark.parametrize(
    ("source", "table", "sentence"),
    [
        ({"path": "sftp://ada:hunter2@h/x"}, {}, "a password stands in the URL"),
        ({"options": {"secret": "hunter2"}}, {}, "expected `secret_env: NAME` in place of secret"),
        (
            {"options": {"client_kwargs": {"aws_secret_access_key": "hunter2"}}},
            {},
            "a secret stands in the document",
        ),
        ({"options": {"headers": {"X-Api-Key": "hunter2"}}}, {}, "expected `X-Api-Key_env: NAME`"),
        ({"after_load": "archive"}, {}, "belong together"),
        ({"path": "https://h/x", "after_load": "delete"}, {}, "files of a web server stay"),
        (
            {"after_load": "delete"},
            {"load": "replace"},
            "tables.orders: load: replace goes by the files that are there",
        ),
        ({}, {"format": "fixed"}, "expected both"),
        ({}, {"files": []}, "files"),
        ({}, {"files": ["*.csv", "../x"]}, "leads out of the source's folder"),
        ({}, {"csv": {"delimiter": "ab"}}, "not a delimiter"),
        ({}, {"csv": {"encoding": "utf-9"}}, "not an encoding"),
    ],
)
def test_a_mistake_is_one_sentence(
    tmp_path: Path, source: dict[str, Any], table: dict[str, Any], sentence: str
) -> None:
    """No secret in it."""
    with pytest.raises(DeclarationError) as refused:
        read(tmp_path, source, table)
    assert sentence in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_secrets_come_from_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of parts inside; a variable that is not set is named."""
    monkeypatch.setenv("SHOP_KEY", "k")
    monkeypatch.setenv("SHOP_BUCKET", "s3://landing/shop")
    options = {"key_env": "SHOP_KEY", "client_kwargs": {"endpoint_url": "http://h", "token_env": "SHOP_NONE"}}
    document = read(tmp_path, {"path": "${SHOP_BUCKET}/in", "options": options})
    table = declared_table(document, "orders", tmp_path)
    assert (table.root, table.patterns) == ("s3://landing/shop/in", ["*.csv"])  # type: ignore[attr-defined]
    with pytest.raises(TerminalError, match="SHOP_NONE is not set"):
        open_source(document, tmp_path)
    monkeypatch.setenv("SHOP_NONE", "t")
    open_source(document, tmp_path).close()


@pytest.mark.parametrize(
    ("path", "archive", "sentence"),
    [
        ("landing", "landing/done", "lies inside source.path"),
        ("landing", "s3://x/y", "is in another store"),
        ("s3://x/y", "s3://x/y/done", "lies inside source.path"),
    ],
)
def test_an_archive_lies_beside_the_files(tmp_path: Path, path: str, archive: str, sentence: str) -> None:
    document = read(tmp_path, {"path": path, "after_load": "archive", "archive": archive})
    with pytest.raises(DeclarationError, match=sentence):
        open_source(document, tmp_path)


def test_columns_of_fixed_width_follow_each_other(tmp_path: Path) -> None:
    """Unless one says where it begins, counted from 1."""
    columns = [{"name": "a", "width": 3}, {"name": "b", "width": 2}, {"name": "c", "start": 10, "width": 1}]
    document = read(tmp_path, {}, {"format": "fixed", "fixed": {"columns": columns}})
    table = declared_table(document, "orders", tmp_path)
    assert table.fixed.columns == (  # type: ignore[attr-defined]
        FixedColumn("a", 0, 3),
        FixedColumn("b", 3, 2),
        FixedColumn("c", 9, 1),
    )


@pytest.mark.parametrize(
    ("files", "technology"),
    [
        ("*.csv.zst", "csv"),
        ("*.ndjson", "jsonl"),
        (["a.orc", "b.csv"], "orc"),
        ("*", "file"),
        ("*.xlsx", "xlsx"),
    ],
)
def test_the_icon_goes_by_the_ending(tmp_path: Path, files: Any, technology: str) -> None:
    assert read(tmp_path, {}, {"files": files}).tables["orders"].technology == technology


def test_the_documents_model_keeps_its_words() -> None:
    """It is what the reference and the editors show."""
    assert FilesKind.document().__doc__ == FilesKind.document().__mro__[1].__doc__
