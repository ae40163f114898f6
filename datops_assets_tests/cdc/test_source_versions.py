"""Sources of other versions than the warehouse's: the core of the cases again, on servers of each version.

All of it is slow; test_a_source_of_version_16 has a few of these tests for CI.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from datops_assets_tests.cdc.conftest import Followed, followed_on
from datops_assets_tests.cdc.servers import OwnServer, own_server
from datops_assets_tests.cdc.test_publication import test_a_publication_of_inserts_only_is_warned_of  # noqa: F401
from datops_assets_tests.cdc.test_rows import *  # noqa: F403
from datops_assets_tests.cdc.test_schema_change import (  # noqa: F401
    test_a_new_table_is_copied_and_the_others_are_left_alone,
    test_ddl_between_changes_of_one_transaction,
    test_ddl_of_one_table_does_not_speak_for_another,
)
from datops_assets_tests.cdc.test_tables import (  # noqa: F401
    test_a_publication_of_somebody_else_keeps_its_columns_and_rows,
    test_every_identity_that_names_a_row,
    test_every_way_to_write,
    test_generated_and_identity_columns,
    test_partitions_arrive_as_one_table,
    test_truncates_of_several_tables,
)
from datops_assets_tests.cdc.test_types import (  # noqa: F401
    test_every_built_in_type_through_snapshot_and_stream,
    test_types_of_the_source_s_own_arrive_as_text,
)
from datops_assets_tests.conftest import TestWarehouse

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=[16, 15])
def elder(request: pytest.FixtureRequest) -> Iterator[OwnServer]:
    with own_server(request.param) as server:
        yield server


@pytest.fixture
def followed(elder: OwnServer, warehouse: TestWarehouse) -> Iterator[Followed]:
    """A source database on the elder server."""
    with followed_on(elder.warehouse, warehouse) as followed:
        yield followed
