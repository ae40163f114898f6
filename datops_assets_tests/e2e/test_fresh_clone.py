"""A fresh clone, no variable set: Dagster's own commands work, and all of them share one history."""

from __future__ import annotations

import pytest

from datops_assets_tests.e2e.clone import Clone, WebUi

pytestmark = pytest.mark.slow  # 60 s: four programs that load the definitions, and a web UI

ELSEWHERE = {
    "PGHOST": "elsewhere.example", "PGPORT": "1", "PGUSER": "nobody", "PGPASSWORD": "wrong", "PGSERVICE": "none",
    "PGOPTIONS": "-c search_path=nowhere", "POSTGRES_HOST": "elsewhere.example", "POSTGRES_PORT": "1",
    "POSTGRES_USER": "nobody", "POSTGRES_PASSWORD": "wrong", "DBT_TARGET_PATH": "/nowhere",
}  # fmt: skip


@pytest.fixture(params=[{}, ELSEWHERE], ids=["no variable", "variables of other programs"])
def clone(request, tmp_path):
    """A clone with two days of the shop in its landing folder."""
    made = Clone.make(tmp_path / "clone")
    made.environment = request.param
    made.datops("generate", "shop", "--days", "2", "--scale", "0.1", "--out", ".datops/landing/shop")
    yield made
    made.stop()


def test_what_the_command_line_materialized_shows_in_the_web_ui(clone):
    assert "Validation successful" in clone.dagster("definitions", "validate")
    clone.dagster("asset", "materialize", "-m", "datops_assets.definitions", "--select", "group:bronze")
    assert len(clone.fetch("select load_id from datops.loads where state = 'loaded'")) >= 11
    web = WebUi(clone)
    try:
        made = web.materializations("bronze", "shop", "orders")[-1]
        [run] = [run for run in web.runs() if run["runId"] == made["runId"]]
        assert run["status"] == "SUCCESS"
        assert "dagster/sensor_name" not in run["tags"]
    finally:
        web.stop()
    left = {path.name for path in clone.folder.iterdir()} - {"dev.log"}
    assert left == {
        "datops_assets",
        "dbt_project",
        "dagster.yaml",
        "workspace.yaml",
        "pyproject.toml",
        ".datops",
    }
