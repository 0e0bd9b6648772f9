"""Compression of responses: gzip, where the client accepts it (RFC 9110, sections 8.4.1.3 and 12.5.3).

Only reads are compressed: they repeat nothing that their request carries beside a secret, so that their length tells
nobody a secret (BREACH). HTML pages have a CSRF token, and stay as they are.
"""

import gzip
import re
from functools import lru_cache

# The names of the operations that are compressed, as in the request log.
OPERATIONS = frozenset({"discover", "list", "instance", "changes", "metrics"})
# Smaller bodies fit into one packet anyway.
MIN_BYTES = 1024
# 120 kB of instances become 12 kB in 0.6 ms; level 6 takes half as long again for 7 % less.
LEVEL = 4
# Browsers send 30 bytes; to read 32 KiB would take the event loop 7 ms.
MAX_HEADER_CHARACTERS = 500
VARY = {"Vary": "Accept-Encoding"}
GZIP = "gzip"

CODING = re.compile(r"\s*([!#$%&'*+.^_`|~0-9a-z-]+)\s*(?:;\s*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*)?")


@lru_cache(maxsize=64)
def min_bytes(accept_encoding: str | None) -> int | None:
    """Return from which size on a body is compressed for this client; None for never.

    A client that accepts gzip but refuses `identity` gets small bodies compressed, too. One that weighs `identity`
    higher than gzip, or sends a very long header, gets all of them as they are.
    """
    if not accept_encoding or len(accept_encoding) > MAX_HEADER_CHARACTERS:
        return None
    weights = read_weights(accept_encoding)
    anything = weights.get("*")
    compressed = weights.get(GZIP, weights.get("x-gzip", anything))
    plain = weights.get("identity", anything)
    if not compressed or (plain or 0) > compressed:
        return None
    return 0 if plain == 0 else MIN_BYTES


def read_weights(accept_encoding: str) -> dict[str, float]:
    """Return the weight of each coding in an Accept-Encoding header. What is malformed is left out."""
    parts = [CODING.fullmatch(part) for part in accept_encoding.lower().split(",")]
    return {part[1]: 1.0 if part[2] is None else float(part[2]) for part in parts if part}


def compress(body: bytes) -> bytes:
    """Return the body in gzip's format. Equal bodies give equal bytes."""
    return gzip.compress(body, LEVEL, mtime=0)
