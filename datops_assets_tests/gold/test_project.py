"""Preparing a project: once for each state of its files, by one process at a time."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

from datops_assets.components.gold.graph import Graph
from datops_assets.components.gold.project import DbtProject
from datops_assets_tests.gold.conftest import DBT_PROJECT


def test_a_changed_project_is_prepared_again_once(tmp_path: Path) -> None:
    """Two processes find it stale; one prepares. Whatever schema a model asks for, it is gold."""
    folder = tmp_path / "dbt_project"
    shutil.copytree(DBT_PROJECT, folder)
    project = DbtProject(folder, tmp_path / "home", "customers elsewhere", "")
    before = project.prepared
    (folder / "models" / "elsewhere.sql").write_text(
        "{{ config(schema='silver', alias='shop_orders') }} select 1 as one"
    )
    assert project.prepared != before

    graphs: list[Graph] = []
    readers = [threading.Thread(target=lambda: graphs.append(project.graph())) for _ in range(2)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert [path.name for path in (tmp_path / "home").iterdir() if path.is_dir()] == [project.prepared.name]
    assert graphs[0] == graphs[1]
    assert {model.unique_id.split(".")[-1]: model.relation for model in graphs[0].models} == {
        "customers": "gold.customers",
        "elsewhere": "gold.shop_orders",
    }
