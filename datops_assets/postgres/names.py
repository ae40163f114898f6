"""Names in the warehouse: of a table in every schema, of a delivered column in silver.

Texts only: loading definitions needs no driver.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from datops_assets.errors import WarehouseError

# PostgreSQL cuts names at 63 bytes without a word; ours grow endings such as `__row` and `_pkey`.
LONGEST_NAME_BYTES = 53


def warehouse_name(source: str, table: str) -> str:
    """The name a source's table has in every schema of the warehouse.

    raises  WarehouseError: it is too long for PostgreSQL
    """
    name = f"{source}_{table}"
    if len(name.encode()) > LONGEST_NAME_BYTES:
        raise WarehouseError(
            f"the name {name!r} is longer than {LONGEST_NAME_BYTES} bytes; "
            "shorten the pipeline's or the table's name"
        )
    return name


def contract_name(delivered: str, rename: Mapping[str, str]) -> str:
    """The contract's name of a delivered column: what `rename:` says, else snake_case."""
    if delivered in rename:
        return rename[delivered]
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", delivered)
    return re.sub(r"[^0-9a-z]+", "_", spaced.lower()).strip("_")
