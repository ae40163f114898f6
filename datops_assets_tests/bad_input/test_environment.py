"""Variables that belong to other programs move nothing: the warehouse is where DATOPS_WAREHOUSE_URL says."""

from __future__ import annotations

from datops_assets_tests.bad_input.conftest import CANARY, Landing

ELSEWHERE = {
    "PGHOST": "elsewhere.example",
    "PGHOSTADDR": "192.0.2.1",
    "PGPORT": "1",
    "PGUSER": "nobody",
    "PGPASSWORD": CANARY,
    "PGPASSFILE": "/nowhere",
    "PGDATABASE": "elsewhere",
    "PGSERVICE": "elsewhere",
    "PGSERVICEFILE": "/nowhere",
    "PGSYSCONFDIR": "/nowhere",
    "PGSSLMODE": "verify-full",
    "PGSSLROOTCERT": "/nowhere",
    "PGREQUIREAUTH": "none",
    "PGTARGETSESSIONATTRS": "standby",
    "PGOPTIONS": "-c default_transaction_read_only=on -c search_path=pg_temp",
    "PGTZ": "Asia/Tokyo",
    "PGDATESTYLE": "SQL, DMY",
    "PGCLIENTENCODING": "LATIN1",
    "PGCONNECT_TIMEOUT": "0",
    "PGAPPNAME": CANARY,
    "POSTGRES_HOST": "elsewhere.example",
    "POSTGRES_PORT": "1",
    "POSTGRES_USER": "nobody",
    "POSTGRES_PASSWORD": CANARY,
    "POSTGRES_DB": "elsewhere",
    "DATABASE_URL": f"postgresql://nobody:{CANARY}@elsewhere.example/elsewhere",
    "DAGSTER_PG_HOST": "elsewhere.example",
    "SQLALCHEMY_URL": f"postgresql://nobody:{CANARY}@elsewhere.example/elsewhere",
    "PYTHONWARNINGS": "ignore",
    "TZ": "Asia/Tokyo",
    "LC_ALL": "tr_TR.UTF-8",
    "COLUMNS": "7",
}


def test_inherited_variables_redirect_nothing(orders: Landing) -> None:
    path = orders.deliver("next.csv", "id,note\n1,x\n2\n")
    orders.run_apart(**ELSEWHERE)
    orders.require_taken(path, rows=1, damaged={2: ("1 fields where the header has 2", b"2")})


def test_a_document_may_refer_to_such_a_variable(orders: Landing) -> None:
    """It is read where it is named, as text and only there."""
    document = (orders.project / "pipeline.yaml").read_text()
    orders.write_document(document.replace("path: landing", "path: '${POSTGRES_HOST}'"))
    (orders.project / "landing").rename(orders.project / "elsewhere.example")
    orders.run_apart(**ELSEWHERE)
    assert orders.silver("orders", "id") == [(1001,), (1002,)]
