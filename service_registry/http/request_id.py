"""The id of a request: the caller's when it is safe to print, else a new one. Every answer carries it."""

import re
import secrets

HEADER = "X-Request-Id"
SAFE = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def safe_or_new(sent: str) -> str:
    """Return the id that the caller sent, or a random one of 32 hexadecimal digits."""
    return sent if SAFE.fullmatch(sent) else secrets.token_hex(16)
