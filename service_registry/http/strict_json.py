"""Request bodies: strict JSON of bounded size and depth."""

from collections.abc import Iterable
from typing import Any

from django.conf import settings

from service_registry.exceptions import BodyTooLarge, CompressedBody, InvalidInput
from service_registry.json_text import parse_strict

# A single object; an array may fill the whole body.
OBJECT_BYTES = 64 * 1024
MAX_DEPTH = 8
CONTAINERS = (dict, list)


def parse_body(body: bytes) -> Any:
    """Return the JSON document of a request body.

    Raises:
        InvalidInput: the body is not JSON, or JSON that is refused here. The error repeats nothing that was sent.
        BodyTooLarge: the body, or the single object in it, is larger than the registry reads.
    """
    if len(body) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
        raise BodyTooLarge
    document = parse_json(body)
    if len(body) > OBJECT_BYTES and not isinstance(document, list):
        raise BodyTooLarge
    return document


def require_uncompressed(content_encoding: str | None) -> None:
    """Raise CompressedBody unless the body is sent as it is (RFC 9110, section 8.4)."""
    if (content_encoding or "identity").strip().lower() != "identity":
        raise CompressedBody


def parse_json(text: bytes) -> Any:
    """Return the document in `text`. Raises InvalidInput."""
    try:
        document = parse_strict(text)
        require_shallow(document)
        return document
    except (ValueError, RecursionError) as error:
        raise InvalidInput({}, "The body is not JSON as this registry reads it.") from error


def require_shallow(document: Any) -> None:
    """Raise ValueError for a document that is nested more deeply than MAX_DEPTH.

    It looks level by level: for an array of a thousand objects that is much cheaper than a recursion into each.
    """
    containers = [document] if isinstance(document, CONTAINERS) else []
    for _ in range(MAX_DEPTH):
        containers = [child for each in containers for child in children(each) if isinstance(child, CONTAINERS)]
    if containers:
        raise ValueError("nested too deeply")


def children(container: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container
