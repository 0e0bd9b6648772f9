"""Responses as front ends send them: JSON in UTF-8, with the contract's headers."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic_core import to_json

INDEX_HEADER = "X-Registry-Index"
JSON = "application/json"


NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Response(NamedTuple):
    """A whole response of the wire layer.

    `body` is empty for 204 and 304; `headers` go beyond those of every response. `lines` are more headers, as HTTP/1.1
    writes them: only the event loop has them, and for what no client has chosen.
    """

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = NO_HEADERS
    media_type: str = JSON
    lines: bytes = b""


def render(document: Any) -> bytes:
    """Return a document as JSON; nothing for None."""
    return b"" if document is None else to_json(document)
