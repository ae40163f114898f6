"""The regular expressions a contract may use: the part that PostgreSQL and Python read alike.

A pattern must match the whole value. It is read by our own small parser and written anew
for each side, because the same text means different things there: `.` and a newline, `$`
before a last newline, `\\d` and Unicode digits, brackets and collations.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_CLASSES = {
    "d": "0-9",
    "w": "A-Za-z0-9_",
    "s": " \\t\\n\\r\\f\\v",
}
_NEGATED = {name.upper(): members for name, members in _CLASSES.items()}
_CONTROL = {"t": "\\t", "n": "\\n", "r": "\\r", "f": "\\f", "v": "\\v"}
_SPECIAL = frozenset(".^$*+?{}[]()|\\")
_MAX_REPEAT = 255
"""PostgreSQL's limit (DUPMAX)."""


@dataclass(frozen=True)
class Pattern:
    """One pattern in the common dialect; `rendered` reads the same on both sides, anchors left out."""

    text: str
    rendered: str
    from_start: bool = False
    to_end: bool = False

    @property
    def postgres(self) -> str:
        """For `~`: matches only whole values."""
        return f"^(?:{self.rendered})$"

    @property
    def postgres_search(self) -> str:
        """For `substring(… from …)`: the first group of the first match anywhere, anchors kept."""
        return f"{'^' if self.from_start else ''}(?:{self.rendered}){'$' if self.to_end else ''}"

    def matches(self, value: str) -> bool:
        """Whether the whole value matches."""
        return re.fullmatch(self.rendered, value, re.ASCII) is not None

    def first_group(self, value: str) -> str | None:
        """The first group of the first match anywhere in the value, as `postgres_search` finds it."""
        pattern = f"{'^' if self.from_start else ''}(?:{self.rendered})" + (r"\Z" if self.to_end else "")
        found = re.search(pattern, value, re.ASCII)
        return found[1] if found else None


def read_pattern(text: str) -> Pattern:
    """Read a pattern of the common dialect.

    raises  ValueError: a construct outside it, with the place and what to write instead
    """
    reader = _Reader(text)
    rendered = reader.alternatives()
    if reader.position < len(text):
        raise reader.refuse("a closing parenthesis without an opening one")
    try:
        re.compile(rendered)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error.msg}") from error
    return Pattern(text, rendered, reader.from_start, reader.to_end)


class _Reader:
    def __init__(self, text: str) -> None:
        self.text, self.position = text, 0
        self.from_start = self.to_end = False

    def refuse(self, what: str) -> ValueError:
        return ValueError(
            f"character {self.position + 1} of the pattern: {what}, which PostgreSQL and Python do not read alike"
        )

    def peek(self, length: int = 1) -> str:
        return self.text[self.position : self.position + length]

    def take(self) -> str:
        character = self.peek()
        self.position += 1
        return character

    def alternatives(self) -> str:
        branches = [self.sequence()]
        while self.peek() == "|":
            self.take()
            branches.append(self.sequence())
        return "|".join(branches)

    def sequence(self) -> str:
        pieces = []
        while self.peek() and self.peek() not in "|)":
            pieces.append(self.piece())
        return "".join(pieces)

    def piece(self) -> str:
        if self.peek() in "^$":
            return self.anchor()
        atom = self.atom()
        quantifier = self.quantifier()
        if quantifier and (self.peek() in tuple("*+?") or self.peek() == "{"):
            raise self.refuse("a repeat of a repeat, or a lazy or possessive one")
        return atom + quantifier

    def anchor(self) -> str:
        first, last = self.position == 0, self.position == len(self.text) - 1
        if (self.peek() == "^" and not first) or (self.peek() == "$" and not last):
            raise self.refuse(f"{self.peek()!r} in the middle")
        if "|" in self.text:
            raise self.refuse(
                "an anchor beside alternatives; the whole value must match anyway, so leave it out,"
            )
        self.from_start, self.to_end = self.from_start or first, self.to_end or last
        self.take()
        return ""

    def atom(self) -> str:
        character = self.take()
        if character == "(":
            return self.group()
        if character == "[":
            return self.brackets()
        if character == ".":
            return "[^\\n]"
        if character == "\\":
            return self.escape()
        if character in "*+?{":
            self.position -= 1
            raise self.refuse("a repeat of nothing")
        return "\\" + character if character in _SPECIAL else character

    def group(self) -> str:
        opening = "("
        if self.peek() == "?":
            if self.peek(2) != "?:":
                raise self.refuse("a group that begins with (?, other than (?:")
            self.position += 2
            opening = "(?:"
        inner = self.alternatives()
        if self.take() != ")":
            raise self.refuse("a group that is not closed")
        return f"{opening}{inner})"

    def escape(self) -> str:
        character = self.take()
        if character in _CLASSES and character:
            return f"[{_CLASSES[character]}]"
        if character in _NEGATED and character:
            return f"[^{_NEGATED[character]}]"
        if character in _CONTROL and character:
            return _CONTROL[character]
        if not character or character.isalnum():
            self.position -= 1
            raise self.refuse(f"the escape \\{character}")
        return "\\" + character if character in _SPECIAL or character == "-" else character

    def brackets(self) -> str:
        negated = self.peek() == "^"
        if negated:
            self.take()
        members: list[str] = []
        while self.peek() != "]" or not members:
            if not self.peek():
                raise self.refuse("brackets that are not closed")
            members.append(self.member())
        self.take()
        return f"[{'^' if negated else ''}{''.join(members)}]"

    def member(self) -> str:
        first = self.one_member()
        if self.peek() != "-" or self.peek(2) == "-]":
            return first
        self.take()
        second = self.one_member()
        if max(len(first.lstrip("\\")), len(second.lstrip("\\"))) > 1 or first.lstrip("\\") > second.lstrip(
            "\\"
        ):
            raise self.refuse("a range that is none")
        return f"{first}-{second}"

    def one_member(self) -> str:
        character = self.take()
        if character == "[":
            if self.peek() in tuple(":.="):
                raise self.refuse("a named class such as [:alpha:]")
            return "\\["
        if character != "\\":
            return "\\" + character if character in "]^-\\" else character
        character = self.take()
        if character in _CLASSES and character:
            return _CLASSES[character]
        if character in _CONTROL and character:
            return _CONTROL[character]
        if not character or character.isalnum():
            raise self.refuse(f"the escape \\{character} in brackets")
        return "\\" + character if character in "]^-\\[" else character

    def quantifier(self) -> str:
        if self.peek() and self.peek() in "*+?":
            return self.take()
        if self.peek() != "{":
            return ""
        found = re.match(r"\{([0-9]+)(,([0-9]*))?\}", self.text[self.position :])
        if found is None:
            raise self.refuse("a brace that begins no {m,n}")
        bounds = [int(number) for number in (found[1], found[3]) if number]
        if max(bounds) > _MAX_REPEAT or bounds != sorted(bounds):
            raise self.refuse(f"a repeat beyond {_MAX_REPEAT} times, or one that goes down")
        self.position += found.end()
        return found[0]
