"""What a person asks and decides about past loads: list, show, undo, reload."""

from __future__ import annotations

from typing import Any

import psycopg

from datops_assets.errors import LoadRefusedError
from datops_assets.ingestion.catalogue import LIVE, LoadEntry, fetch_loads
from datops_assets.ingestion.delivery import read_entries, reinstated
from datops_assets.postgres.tables import lock_table, table_id

_RELOADABLE = ("undone", "failed", "refused")


def list_loads(
    conn: psycopg.Connection[Any],
    source: str | None = None,
    table: str | None = None,
    *,
    state: str | None = None,
    run_id: str | None = None,
    limit: int | None = None,
) -> list[LoadEntry]:
    """Return loads, newest first.

    source, table, state, run_id   only these; None: all
    limit                          how many at most; None: all
    """
    wanted = {"t.source": source, "t.name": table, "l.state": state, "l.run_id": run_id}
    stated = {column: value for column, value in wanted.items() if value is not None}
    where = " and ".join(f"{column} = %s" for column in stated) or "true"
    return fetch_loads(conn, where, list(stated.values()), limit)


def refused_loads(
    conn: psycopg.Connection[Any], source: str, table: str, *, run_id: str | None = None
) -> list[LoadEntry]:
    """Return the files that wait refused or failed: those whose newest entry says so, by path.

    run_id     also those that this run was to take and could not finish; a later run tries them anew
    """
    newest = """t.source = %s and t.name = %s
        and (l.state in ('failed', 'refused') and not l.reload_requested or l.state = 'interrupted' and l.run_id = %s)
        and l.load_id = (select max(o.load_id) from datops.loads o
                          where o.table_id = l.table_id and o.path = l.path and o.state <> 'loading')"""
    return sorted(fetch_loads(conn, newest, [source, table, run_id], None), key=lambda load: load.path)


def show_load(conn: psycopg.Connection[Any], load: str) -> LoadEntry:
    """Return one load.

    load       its ULID or its number
    raises     LoadRefusedError: there is none of that name
    """
    found = fetch_loads(conn, "l.ulid = %s or l.load_id::text = %s", (load.upper(), load), 1)
    if not found:
        raise LoadRefusedError(f"there is no load {load!r}; datops load list shows all")
    return found[0]


def undo_load(conn: psycopg.Connection[Any], load: str) -> LoadEntry:
    """Take a load out of silver's sight; its rows stay in bronze, silver follows when it is next built.

    returns    the load as it is now
    raises     LoadRefusedError: it is not live, or what it had replaced is no longer in bronze
    promise    what it had replaced is live again: the same path's earlier load, and what had left with
               its delivery once nothing of that delivery is left. The file is not loaded
               again until its content changes or `datops load reload` says so; a later content of
               the same path that was refused is tried again by the next run.
    """
    found = show_load(conn, load)
    with lock_table(conn, found.source, found.table):
        entry = show_load(conn, found.ulid)
        if entry.state not in LIVE:
            raise LoadRefusedError(
                f"load {load} of {entry.path} is {entry.state}; only a loaded one can be undone"
            )
        with conn.transaction():
            conn.execute("update datops.loads set state = 'undone' where load_id = %s", (entry.load_id,))
            _reinstate(conn, entry)
            conn.execute(_LET_IN, {"load_id": entry.load_id})
        return show_load(conn, found.ulid)


def reload_load(conn: psycopg.Connection[Any], load: str) -> LoadEntry:
    """Let the next run take an undone, failed or refused file again, changed or not.

    returns    the load as it is now
    raises     LoadRefusedError: it is loaded, or never was tried to the end
    """
    found = show_load(conn, load)
    with lock_table(conn, found.source, found.table):
        entry = show_load(conn, found.ulid)
        if entry.state not in _RELOADABLE:
            hint = f"; undo it first: datops load undo {load}" if entry.state in LIVE else ""
            raise LoadRefusedError(f"load {load} of {entry.path} is {entry.state}{hint}")
        conn.execute("update datops.loads set reload_requested = true where load_id = %s", (entry.load_id,))
        return show_load(conn, found.ulid)


# Under `changed_file: refuse` the load that goes was what stood in its way; any other cause refuses it once more.
_LET_IN = """
update datops.loads l set reload_requested = true
  from datops.loads undone
 where undone.load_id = %(load_id)s and l.table_id = undone.table_id and l.path = undone.path
   and l.load_id > undone.load_id and l.state = 'refused'
"""


def _reinstate(conn: psycopg.Connection[Any], undone: LoadEntry) -> None:
    """Let what a load had replaced be live again; a staged one has replaced nothing yet."""
    if undone.state != "loaded":
        return
    entries = read_entries(conn, table_id(conn, undone.source, undone.table))
    (before,) = (entry for entry in entries if entry.load_id == undone.load_id)
    back = reinstated(before, entries)
    gone = "select count(*) from datops.loads where load_id = any(%s) and pruned_at is not null"
    if conn.execute(gone, (back,)).fetchone() != (0,):
        raise LoadRefusedError(
            f"load {undone.ulid} took the place of rows that bronze has let go since (`keep:`), so undoing it would"
            f" leave {undone.path} without any; deliver what is right, and the next run takes that instead"
        )
    conn.execute(
        "update datops.loads set state = 'loaded', superseded_by = null where load_id = any(%s)", (back,)
    )
