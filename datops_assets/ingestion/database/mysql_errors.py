"""What MySQL's errors mean for a run: what passes, and what waits for a person. A sentence each, no value."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from datops_assets.errors import DatopsError, SourceRefusedError, SourceUnreachableError
from datops_assets.ingestion.database.address import Address, missing_driver
from datops_assets.ingestion.database.mysql_rows import ServerSaidError


@contextmanager
def explained(address: Address, what: str) -> Iterator[None]:
    """Turn the driver's errors into sentences about the source; not chained, they may hold cell values."""
    try:
        import pymysql
    except ImportError as error:
        raise missing_driver(address, error) from None
    try:
        yield
    except pymysql.Error as error:
        code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        raise _explain(address.shown, what, code) from None
    except ServerSaidError as error:
        raise _explain(address.shown, what, error.code) from None
    except (OSError, ConnectionError):
        raise _explain(address.shown, what, 0) from None


def _explain(where: str, what: str, code: int) -> DatopsError:
    if code in _REFUSED:
        return SourceRefusedError(_REFUSED[code].format(where=where, what=what))
    if code in _PASSING:
        reason = f"error {code}" if code else "no answer, or the connection was lost"
        return SourceUnreachableError(
            f"{what}: the database at {where} cannot be read right now ({reason}); nothing of it was kept, try again"
        )
    return SourceRefusedError(
        f"{what}: the database at {where} refused the reading (error {code}); see its log, then: datops connector test"
    )


_PASSING = {
    0,
    1040,
    1041,
    1053,
    1152,
    1158,
    1159,
    1160,
    1161,
    1205,
    1213,
    1317,
    1927,
    1969,
    2002,
    2003,
    2006,
    2013,
    3024,
}
_CREDENTIALS = (
    "the database at {where} refuses the user or the password;"
    " correct `url` or the variable that `password_env` names, then: datops connector test"
)
_GRANT = "{what}: this user may not read it at {where}; grant select, then: datops connector test"
_REFUSED = {
    1044: _CREDENTIALS,
    1045: _CREDENTIALS,
    1698: _CREDENTIALS,
    1820: _CREDENTIALS,
    1862: _CREDENTIALS,
    1130: "the database at {where} lets nobody in from here; ask for an entry of its user for this host",
    1049: "the server has no database {where}; correct `url`, then: datops connector test",
    1142: _GRANT,
    1143: _GRANT,
    1146: "{what}: there is no such table at {where}; correct `table:`, then: datops connector test",
}
