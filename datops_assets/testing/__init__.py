"""For a team's own tests and CI: what datops promises, as assertions and pytest fixtures.

    from datops_assets.testing import assert_contract, assert_rows_equal

The fixtures `datops_warehouse`, `datops_shop` and `datops_pipeline` are in `datops_assets.testing.plugin`.
"""

from datops_assets.testing.assertions import assert_contract, assert_rows_equal

__all__ = ["assert_contract", "assert_rows_equal"]
