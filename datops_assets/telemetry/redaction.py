"""Blanks secrets in text that is about to be shown or sent.

A net below the rule that messages hold no secrets: drivers and servers of others quote
connection strings and headers in theirs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

BLANK = "***"

# A value is blanked up to the next separator; a quoted one up to its closing quote.
_VALUE = r"""(?:"[^"]*"|'[^']*'|[^\s"',;&)}\]]+)"""
_PATTERNS = (
    # postgresql://user:password@host; a password may hold "@", a "/" in it must be percent-encoded
    (re.compile(r"(://[^\s:/@]*):[^\s/]*@"), rf"\1:{BLANK}@"),
    (re.compile(rf"(?i)\b(bearer|basic)\s+{_VALUE}"), rf"\1 {BLANK}"),
    (
        re.compile(
            r"(?i)\b((?:[a-z0-9]+[_-])*(?:password|passwd|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key))"
            rf"""(["']?\s*[=:]\s*){_VALUE}"""
        ),
        rf"\1\2{BLANK}",
    ),
)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` without passwords and tokens, and without every one of the known `secrets`."""
    # The longest first: a secret that is part of another must not leave the rest of it.
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, BLANK)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text
