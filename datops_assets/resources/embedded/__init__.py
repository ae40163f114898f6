"""Our own PostgreSQL server: the warehouse where nobody brought one."""

from datops_assets.resources.embedded.cluster import Address
from datops_assets.resources.embedded.server import EmbeddedServer, Status
from datops_assets.resources.embedded.upgrade import upgrade_server

__all__ = ["Address", "EmbeddedServer", "Status", "upgrade_server"]
