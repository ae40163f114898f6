"""A team's own functions, as documents name them."""

from __future__ import annotations

import pandas as pd


def net(frame: pd.DataFrame) -> pd.DataFrame:
    """Row by row, so in batches."""
    return pd.DataFrame(
        {
            "id": frame["id"],
            "net": frame["total"].map(lambda t: t / 2, na_action="ignore"),
            "said": frame["k"],
        }
    )


def shares(frame: pd.DataFrame) -> pd.DataFrame:
    """Needs all rows."""
    return pd.DataFrame({"id": frame["id"], "share": frame["n"].astype("float64") / frame["n"].sum()})


def moments(frame: pd.DataFrame) -> pd.DataFrame:
    """What came in, unchanged."""
    return frame


def fails(frame: pd.DataFrame) -> pd.DataFrame:
    """Says a value in its error."""
    raise ValueError(f"secret {frame['k'].iloc[0]}")


def lies(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns text where a number is declared."""
    return pd.DataFrame({"id": ["one"] * len(frame)})


def forgets(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns another column than declared."""
    return frame[["k"]]
