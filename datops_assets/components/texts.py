"""What a text of the document may be; each kind says in a sentence what was expected.

Belongs here: a single text, looked at alone, before Dagster, the file system or a codec stumbles
over it with a traceback. Does not: what texts mean together (document.py).
"""

from __future__ import annotations

import codecs
import re
from datetime import date
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, Discriminator, Field, Tag

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
VARIABLE = re.compile(r"\$\{([^}]*)\}")
"""A reference to a variable, `${NAME}`."""
_CRON_FIELDS = 5
# As Dagster checks them, which would say so with a traceback.
_EMAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}\Z")
_TAG_NAME = re.compile(r"([A-Za-z0-9_.-]{1,63}/)?[A-Za-z0-9_.-]{1,63}\Z")
_TAG_VALUE = re.compile(r"[A-Za-z0-9_.-]{0,63}\Z")
_NOT_FOR_FILES = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined"})
_FIRST_DAY, _LAST_DAY = date(1900, 1, 1), date(2199, 12, 31)


def is_name(value: str) -> bool:
    """Whether a pipeline or a table may be called so."""
    return _NAME.match(value) is not None


def _name(value: str) -> str:
    if not is_name(value):
        raise ValueError("not a name, expected lower case letters, digits and _ (at most 40, a letter first)")
    return value


def _table_name(value: str) -> str:
    # Indexes, sequences and tables of ours are named `<pipeline>_<table>__<what>`.
    if "__" in value or value.endswith("_"):
        raise ValueError("names with two _ in a row are datops' own, expected no `__` and no _ at the end")
    return value


def _template(value: str) -> str:
    for variable in VARIABLE.findall(value):
        if not _VARIABLE_NAME.match(variable):
            raise ValueError("not a variable, expected ${NAME}")
    return value


def _glob(value: str) -> str:
    path = PurePosixPath(value)
    if value.startswith(("/", "~")) or ".." in path.parts:
        raise ValueError("leads out of the source's folder, expected a glob below it such as `orders/*.csv`")
    if not path.parts:
        raise ValueError("names no file, expected a glob below the source's folder such as `orders/*.csv`")
    if any("**" in part and part != "**" for part in path.parts):
        raise ValueError("** stands beside other characters, expected it alone between two slashes")
    return value


def _marker(value: str) -> str:
    if not value or "/" in value or value in (".", ".."):
        raise ValueError("not a file name, expected one such as {name}.done")
    return value


def _encoding(value: str) -> str:
    problem = ValueError("not an encoding, expected a name such as utf-8, latin-1 or utf-16")
    try:
        name = codecs.lookup(value).name
        "".encode(value)
    except (LookupError, ValueError):  # unknown, not of texts (rot13, hex), or no name at all
        raise problem from None
    if name.replace("-", "_") in _NOT_FOR_FILES:
        raise problem
    return value


def _cron(value: str) -> str:
    from croniter import croniter

    if len(value.split()) != _CRON_FIELDS or not croniter.is_valid(value) or not _comes(value):
        raise ValueError("not a cron line, expected five fields such as `0 5 * * *`")
    return value


def _comes(cron: str) -> bool:
    from croniter import CroniterBadDateError, croniter

    try:
        croniter(cron, 0).get_next()
    except CroniterBadDateError:  # the 31st of February
        return False
    return True


def _owner(value: str) -> str:
    if not _EMAIL.match(value) and not (value.startswith("team:") and value != "team:"):
        raise ValueError("not an owner, expected an e-mail address or team:<name>")
    return value


def _tags(tags: dict[str, str]) -> dict[str, str]:
    if not all(_TAG_NAME.match(name) and _TAG_VALUE.match(value) for name, value in tags.items()):
        raise ValueError("not a tag, expected letters, digits, _, - and . (at most 63) on both sides")
    return tags


def _pool(value: str) -> str:
    if not re.fullmatch(r"\S+", value):
        raise ValueError("not a pool, expected a name without blanks")
    return value


def _asset(value: str) -> str:
    if not all(value.split("/")):
        raise ValueError("not an asset, expected names between slashes such as synthetic/shop")
    return value


def _day(value: date) -> date:
    if not _FIRST_DAY <= value <= _LAST_DAY:
        raise ValueError(f"no day to begin with, expected one from {_FIRST_DAY} to {_LAST_DAY}")
    return value


Name = Annotated[str, AfterValidator(_name)]
TableName = Annotated[Name, AfterValidator(_table_name)]
PathTemplate = Annotated[str, Field(min_length=1), AfterValidator(_template)]
Glob = Annotated[str, Field(min_length=1), AfterValidator(_glob)]
# Chosen by what stands there, so that a mistake is said once and of what was meant.
Globs = Annotated[
    Annotated[Glob, Tag("(one)")] | Annotated[list[Glob], Field(min_length=1), Tag("(several)")],
    Discriminator(lambda value: "(several)" if isinstance(value, list) else "(one)"),
]
Marker = Annotated[str, AfterValidator(_marker)]
Encoding = Annotated[str, AfterValidator(_encoding)]
EncodingOrAuto = Annotated[str, AfterValidator(lambda value: value if value == "auto" else _encoding(value))]
Cron = Annotated[str, AfterValidator(_cron)]
Owner = Annotated[str, AfterValidator(_owner)]
Tags = Annotated[dict[str, str], AfterValidator(_tags)]
Pool = Annotated[str, AfterValidator(_pool)]
Asset = Annotated[str, AfterValidator(_asset)]
Day = Annotated[date, AfterValidator(_day)]
