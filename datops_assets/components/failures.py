"""What goes wrong in a step, in Dagster's words: what is tried again, what stops for a person."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from datops_assets.errors import DatopsError, RetryableError


@contextmanager
def failing_as_dagster() -> Iterator[None]:
    """Turn what goes wrong into a Failure that says one sentence.

    Only what may pass leaves the step's retry policy in force: a RetryableError, a connection
    that broke. Anything else would fail the same way again, so it ends the step at once.
    The driver's errors are never chained: their text (DETAIL, CONTEXT) may hold cells, and
    Dagster keeps every cause in its history.
    """
    try:
        yield
    except DatopsError as error:
        raise _failure(error) from None
    except dg.Failure:
        raise
    except Exception as error:
        raise _unforeseen(error) from (None if _comes_from_driver(error) else error)


def _failure(error: DatopsError) -> dg.Failure:
    return dg.Failure(
        description=str(error),
        metadata={"kind": type(error).__name__},
        allow_retries=isinstance(error, RetryableError),
    )


def _unforeseen(error: Exception) -> dg.Failure:
    import psycopg

    from datops_assets.resources.server_errors import explain

    kind = type(error).__name__
    if not isinstance(error, psycopg.Error):
        return dg.Failure(description=f"{kind}: {error}", metadata={"kind": kind}, allow_retries=False)
    if isinstance(error, psycopg.InterfaceError):  # what the driver says of a connection that is no more
        said = f"the connection to the warehouse broke ({kind}); if it stays so: datops doctor"
        return dg.Failure(description=said, metadata={"kind": kind}, allow_retries=True)
    known = explain(error, "hand")
    if known is not None:
        return _failure(known)
    said = f"the warehouse refused a statement ({kind}, SQLSTATE {error.sqlstate})"
    return dg.Failure(description=said, metadata={"kind": kind}, allow_retries=False)


def _comes_from_driver(error: BaseException | None) -> bool:
    import psycopg

    while error is not None:
        if isinstance(error, psycopg.Error):
            return True
        error = error.__cause__ or error.__context__
    return False
