"""Changes found by asking: a cursor's news, and hashes of keys and rows compared with the mirror's.

For every database that can be read, whether it shows its log or not. Belongs here: what is compared and what is
written of it. Does not: reading a source, which is handed in (declared.Look).
"""

from datops_assets.cdc.query.capture import QueryCapture
from datops_assets.cdc.query.declared import Compare, Look, QueriedTable, QueryStream
from datops_assets.cdc.query.looking import Looked, drain, end_stream, take_snapshot

__all__ = [
    "Compare",
    "Look",
    "Looked",
    "QueriedTable",
    "QueryCapture",
    "QueryStream",
    "drain",
    "end_stream",
    "take_snapshot",
]
