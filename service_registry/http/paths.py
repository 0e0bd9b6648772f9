"""Split paths where the client split them.

An instance id may contain slashes and percent signs, which a client encodes as `%2F` and `%25`. Servers decode the path
before it is split: `docs/decisions/0025-instance-ids-in-paths.md`.
"""

from urllib.parse import unquote, unquote_to_bytes

from django.utils.encoding import repercent_broken_unicode


def routing_path(path: str, sent: bytes | None) -> str:
    """Return a path in which only the slashes between its segments are slashes.

    All else is decoded, but for slashes (`%2F`) and percent signs (`%25`) within a segment: `decode_segment` returns
    them.

    Args:
        path: the path that the server has decoded.
        sent: the path as the client sent it, perhaps with a query, from servers that pass it. It is used only where
            decoding it gives `path`: a proxy or a module of the server may have rewritten one of them.
    """
    target = sent.partition(b"?")[0] if sent else b""
    segments = map(unquote, target.decode("latin-1").split("/")) if is_decoded(path, target) else path.split("/")
    return "/".join(segment.replace("%", "%25").replace("/", "%2F") for segment in segments)


def is_decoded(path: str, target: bytes) -> bool:
    """Return whether a path is what its server makes of `target`.

    ASGI servers replace bytes that are not UTF-8; Django's WSGI handler leaves them encoded.
    """
    decoded = unquote_to_bytes(target)
    return path in {decoded.decode(errors="replace"), repercent_broken_unicode(decoded).decode()}


def decode_segment(segment: str) -> str:
    """Return a segment of a routing path as the client meant it."""
    return unquote(segment)
