"""The request's id: taken from the caller when it is sane, else made, and sent back on every answer."""

import re
import secrets
from typing import Any

SANE = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def id_of(request: Any) -> str:
    """The id of a Django or DRF request, made at the first call where the caller sent none that is sane."""
    request = getattr(request, "_request", request)
    kept: str | None = getattr(request, "request_id", None)
    if kept is None:
        kept = request.request_id = sane_or_new(request.headers.get("X-Request-Id", ""))
    return kept


def sane_or_new(sent: str) -> str:
    return sent if SANE.fullmatch(sent) else secrets.token_hex(16)
