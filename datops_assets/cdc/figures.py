"""A stream's figures over time, in the catalogue: how far it is behind, and what it holds back in the source."""

from __future__ import annotations

from typing import Any

import psycopg

from datops_assets.cdc.capture import Standing


def keep_figures(
    conn: psycopg.Connection[Any], source: str, standing: Standing, *, longest_lag_s: float = 0.0
) -> None:
    """Add how a stream stands now to datops.metrics, at the first of its tables.

    longest_lag_s  the longest that a change waited since the last time, where that is known
    promise        a statement of its own: in whatever transaction the caller has
    """
    figures = {
        **standing.figures,
        "lag_seconds": max(float(standing.figures.get("lag_seconds", 0.0)), longest_lag_s),
        "is_sound": float(standing.is_sound),
    }
    conn.execute(
        "insert into datops.metrics (table_id, metric, value)"
        " select t.first, f.metric, f.value from unnest(%s::text[], %s::float8[]) as f(metric, value),"
        " (select min(table_id) as first from datops.tables where source = %s) t where t.first is not null",
        (list(figures), [float(value) for value in figures.values()], source),
    )
