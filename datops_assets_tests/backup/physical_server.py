"""A server of its own that is worth copying, and backups of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from datops_assets.backup.catalogue import BackupEntry, list_backups
from datops_assets.backup.physical import PhysicalBackup, take_physical
from datops_assets.backup.runs import Taken
from datops_assets.backup.verify import Verified, verify
from datops_assets_tests.conftest import TestWarehouse

CONTENT = """
drop schema if exists public cascade; create schema public;
create table orders (id int primary key, note text);
create table wide (id int generated always as identity, long text);
insert into orders select g, md5(g::text) from generate_series(1, 2000) g;
insert into wide (long) select string_agg(md5((g + i)::text), '') from generate_series(1, 20) g,
  generate_series(1, 300) i group by g;
"""


@dataclass
class Copied:
    """A server whose backups lie in one folder."""

    warehouse: TestWarehouse
    backup: PhysicalBackup
    folder: Path

    def take(self, *, parent: Taken | None = None, **changes: Any) -> Taken:
        """Take a full backup, or what changed since `parent`."""
        backup = dataclasses.replace(self.backup, **changes)
        built_on = (parent.manifest, backup.destinations[0]) if parent else None
        return take_physical(self.warehouse.conn, backup, why="test", parent=built_on)

    def entries(self) -> list[BackupEntry]:
        """What the catalogue says."""
        return list_backups(self.warehouse.conn, self.backup.name)

    def look(self, taken: Taken) -> Verified:
        """Verify the copy."""
        return verify(
            self.backup.destinations[0], self.backup.name, taken.manifest.backup_id, self.backup.keys,
            catalogue_text=None,
        )  # fmt: skip

    def artefacts(self, taken: Taken) -> list[Path]:
        """The files of a backup, without the manifest."""
        return sorted((self.folder / taken.manifest.folder).glob("0*"))

    @contextmanager
    def connect(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection to the database that is backed up."""
        with self.backup.server.connect() as conn:
            yield conn
