"""Text from outside on its way to a person: nothing in it moves a cursor, colours a line or begins one."""

from __future__ import annotations


def one_line(text: str) -> str:
    """`text` with everything that is not printed as itself written as an escape."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
