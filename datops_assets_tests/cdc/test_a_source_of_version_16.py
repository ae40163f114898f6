"""A source of PostgreSQL 16, as the wheel carries it: a few of the tests that test_source_versions.py has in full."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from datops_assets_tests.cdc.conftest import Followed, followed_on
from datops_assets_tests.cdc.servers import OwnServer, own_server
from datops_assets_tests.cdc.test_rows import test_values_left_out_of_an_update_are_kept  # noqa: F401
from datops_assets_tests.cdc.test_schema_change import test_ddl_between_changes_of_one_transaction  # noqa: F401
from datops_assets_tests.cdc.test_tables import (  # noqa: F401
    test_a_publication_of_somebody_else_keeps_its_columns_and_rows,
    test_partitions_arrive_as_one_table,
)
from datops_assets_tests.cdc.test_types import test_types_of_the_source_s_own_arrive_as_text  # noqa: F401
from datops_assets_tests.conftest import TestWarehouse


@pytest.fixture(scope="module")
def elder() -> Iterator[OwnServer]:
    with own_server(16) as server:
        yield server


@pytest.fixture
def followed(elder: OwnServer, warehouse: TestWarehouse) -> Iterator[Followed]:
    """A source database on that server."""
    with followed_on(elder.warehouse, warehouse) as followed:
        yield followed
