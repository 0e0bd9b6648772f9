"""The request line and the headers of a request."""

import re
import urllib.parse
from typing import Any

import httptools
from asgiref.typing import HTTPScope

# The header alone. What a client announces to come after the request, such as h2c, is not offered here.
UPGRADE = re.compile(rb"(?<=\r\n)upgrade[ \t]*:[^\r\n]*\r\n", re.IGNORECASE)


def without_upgrade(head: bytes) -> bytes:
    """Return the head of a request without its Upgrade headers.

    A server ignores an Upgrade that it does not support (RFC 9110, section 7.8). The parser would take the body for
    the other protocol.
    """
    return UPGRADE.sub(b"", head)


def split_target(target: bytes) -> tuple[bytes, bytes, bytes | None]:
    """Return path, query and authority of a request target; no authority of a path alone.

    Raises httptools.HttpParserError.
    """
    if target.startswith(b"/") and b"#" not in target:
        path, _, query = target.partition(b"?")
        return path, query, None
    url = httptools.parse_url(target)
    authority = url.host and (b"%b:%d" % (url.host, url.port) if url.port else url.host)
    return url.path or b"/", url.query or b"", authority


def make_scope(
    common: dict[str, Any], method: bytes, target: bytes, version: str, headers: list[tuple[bytes, bytes]]
) -> HTTPScope:
    """Return the ASGI scope of a request.

    Args:
        common: what all requests of the connection share.

    Raises:
        httptools.HttpParserError: the target is no URL.
    """
    raw_path, query, authority = split_target(target)
    if authority is not None:  # it counts, and not the Host header (RFC 9112, section 3.2.2)
        headers = [*(field for field in headers if field[0] != b"host"), (b"host", authority)]
    path = raw_path.decode("ascii")
    root_path = common["root_path"]
    scope: Any = common | {
        "http_version": version,
        "method": method.decode("ascii"),
        "path": root_path + (urllib.parse.unquote(path) if "%" in path else path),
        "raw_path": root_path.encode("ascii") + raw_path if root_path else raw_path,
        "query_string": query,
        "headers": headers,
        "state": common["state"].copy(),
    }
    return scope  # type: ignore[no-any-return] # a dictionary with the keys of HTTPScope
