"""What the drivers of stores say when something goes wrong, in our own errors. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from datops_assets.errors import (
    ContainerDamagedError,
    DatopsError,
    FileChangedError,
    SourceRefusedError,
    SourceUnreachableError,
)
from datops_assets.ingestion.source import Unit

_REFUSED_STATUS = (401, 403)
_BUSY_STATUS = (408, 425, 429)
_FIRST_SERVER_ERROR = 500
_REFUSED = frozenset(
    {
        "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "DefaultCredentialsError",
        "RefreshError", "ClientAuthenticationError", "AuthenticationException", "BadHostKeyException",
        "PasswordRequiredException", "PermissionError", "ProfileNotFound", "TokenRetrievalError",
    }
)  # fmt: skip
_CHANGED = frozenset({"FileExpired", "ResourceModifiedError", "PreconditionFailed"})
_MISSING = frozenset({"FileNotFoundError", "ResourceNotFoundError", "NoSuchBucket", "NoSuchKey"})
_UNDERSTOOD = (TypeError, ValueError, AttributeError, KeyError)


def is_missing(error: BaseException) -> bool:
    """Return whether there is no such file or folder."""
    return bool(_names(error) & _MISSING) or _status(error) == 404


def explain(error: BaseException, url: str, unit: Unit | None = None) -> DatopsError:
    """Say what a driver's error means. Its own text is left out: it may hold keys and cell values."""
    if isinstance(error, DatopsError):
        return error
    shown, names, status = without_secrets(url), _names(error), _status(error)
    why = f"{type(error).__name__}{f', status {status}' if status else ''}"
    what = f"{unit.path}: {shown}" if unit else shown
    if names & _CHANGED or status == 412:
        return FileChangedError(
            f"{unit.path if unit else shown} changed while it was read; nothing of it was kept, the next run takes it"
        )
    if "host key" in str(error).lower() or "known_hosts" in str(error) or "BadHostKeyException" in names:
        host = urlsplit(url).hostname
        return SourceRefusedError(
            f"{what}: its host key is not the one in known_hosts; make sure it is the right server, then:"
            f" ssh-keyscan {host} >> ~/.ssh/known_hosts"
        )
    if names & _REFUSED or status in _REFUSED_STATUS:
        return SourceRefusedError(f"{what} refuses us ({why}); check the credentials and their permissions")
    if names & _MISSING or status == 404:
        return SourceRefusedError(f"{what} is not there ({why}); check `source.path`")
    if status is not None and status not in _BUSY_STATUS and status < _FIRST_SERVER_ERROR:
        return SourceRefusedError(f"{what} says no ({why}); check `source.path` and `options:`")
    if isinstance(error, _UNDERSTOOD) and unit is None:
        return SourceRefusedError(f"{what} cannot be opened ({why}); check `source.path` and `options:`")
    if "EncodingError" in why:
        return ContainerDamagedError(f"{what} cannot be read ({why}); deliver the file again")
    return SourceUnreachableError(f"{what} does not answer ({why}); nothing of it was kept, try again")


def without_secrets(url: str) -> str:
    """Return a URL without its query and the part of user and password."""
    parts = urlsplit(url)
    if "@" not in parts.netloc and not parts.query:
        return url
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__cause__ or at.__context__


def _names(error: BaseException) -> frozenset[str]:
    return frozenset(kind.__name__ for each in _chain(error) for kind in type(each).__mro__)


def _status(error: BaseException) -> int | None:
    for each in _chain(error):
        response: Any = getattr(each, "response", None)
        if isinstance(response, dict):
            response = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        places = (
            response,
            getattr(response, "status_code", None),
            getattr(each, "status", None),
            getattr(each, "status_code", None),
            getattr(each, "code", None),
        )
        for place in places:
            if isinstance(place, int) and 400 <= place < 600:
                return place
    return None
