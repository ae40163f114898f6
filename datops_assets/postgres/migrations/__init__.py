"""The catalogue's migrations: forward-only SQL files, applied in the order of their names.

A file is `<timestamp>__<what>.sql` and never changes once released: a correction is a new file.
"""

from datops_assets.postgres.migrations.runner import Migration, pending, read_migrations, upgrade

__all__ = ["Migration", "pending", "read_migrations", "upgrade"]
