"""Databases as sources: which table, from where on, and how its rows travel unchanged.

Belongs here: addresses and sessions of source databases, their types, cursors and watermarks.
Does not: documents (components), the environment (config), the warehouse (postgres, resources).
PostgreSQL goes by binary COPY; every other database by record batches through SQLAlchemy.
"""

from datops_assets.ingestion.database.address import Address, open_database, open_look
from datops_assets.ingestion.database.tables import DatabaseTable, Lookback

__all__ = ["Address", "DatabaseTable", "Lookback", "open_database", "open_look"]
