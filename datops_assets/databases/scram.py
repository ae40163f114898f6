"""SCRAM-SHA-256 verifiers: what the server keeps in place of a password.

Made here, so that no statement, and no log of statements, ever holds the password itself.
source    RFC 5802 and 7677; PostgreSQL, "pg_authid"
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets

ITERATIONS = 4096
"""PostgreSQL's own default; the passwords are 256 random bits, which stretching protects from nothing."""
_SALT_BYTES = 16
_FORM = re.compile(r"SCRAM-SHA-256\$(\d+):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)")


def make_verifier(password: str, salt: bytes | None = None, iterations: int = ITERATIONS) -> str:
    """The verifier of a password; ASCII only, as ours are, so no SASLprep is needed.

    raises    ValueError: the password has characters beyond ASCII
    """
    salt = secrets.token_bytes(_SALT_BYTES) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, iterations)
    client = hmac.digest(salted, b"Client Key", "sha256")
    stored = hashlib.sha256(client).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${iterations}:{_text(salt)}${_text(stored)}:{_text(server)}"


def is_verifier_of(verifier: str, password: str) -> bool:
    """Whether the server's verifier is this password's. False for an md5 hash."""
    found = _FORM.fullmatch(verifier)
    if found is None or not password.isascii():
        return False
    salt = base64.b64decode(found[2])
    return hmac.compare_digest(make_verifier(password, salt, int(found[1])), verifier)


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
