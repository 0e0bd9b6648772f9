"""Responses as front ends send them: JSON in UTF-8, with the contract's headers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_json

INDEX_HEADER = "X-Registry-Index"
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response of the wire layer.

    `body` is empty for 204 and 304; `headers` go beyond those of every response.
    """

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    media_type: str = JSON


def render(document: Any) -> bytes:
    """Return a document as JSON; nothing for None."""
    return b"" if document is None else to_json(document)
