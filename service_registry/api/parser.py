"""The one parser: strict JSON, of bounded size."""

import json
from collections.abc import Iterable, Mapping
from typing import IO, Any

from django.conf import settings
from rest_framework.exceptions import APIException
from rest_framework.parsers import BaseParser

from service_registry.api import operation
from service_registry.exceptions import InvalidInput

# A single object; an array may fill the whole body.
OBJECT_BYTES = 64 * 1024
LEVELS = 8
CONTAINERS = (dict, list)


class BodyTooLarge(APIException):
    """The body is larger than the registry reads."""

    status_code = 413
    default_code = "too_large"
    default_detail = "A body may have 1 MiB, and a single object 64 KiB."


class StrictJSONParser(BaseParser):
    """JSON (RFC 8259) without what its readers disagree on: duplicate keys, NaN, endless numbers or nesting."""

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """The document in the body.

        Raises:
            BodyTooLarge: by its announced length, before anything is read; or for a single object, once read.
            InvalidInput: it is no JSON, or JSON that is refused.
        """
        announced = int(parser_context["request"].META.get("CONTENT_LENGTH") or 0) if parser_context else 0
        if announced > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            raise BodyTooLarge
        body = stream.read(settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)
        document = loads(body)
        if len(body) > (settings.DATA_UPLOAD_MAX_MEMORY_SIZE if isinstance(document, list) else OBJECT_BYTES):
            raise BodyTooLarge
        if parser_context:
            operation.note_body(parser_context["request"], document)
        return document


def loads(body: bytes) -> Any:
    """Read JSON strictly. Raises InvalidInput, without a word of what was sent."""
    try:
        document = DECODER.decode(body.decode("utf-8"))
        refuse_nesting(document)
        return document
    except (ValueError, RecursionError) as error:
        raise InvalidInput({}, "The body is not JSON as this registry reads it.") from error


def refuse_nesting(document: Any) -> None:
    """Level by level, which for an array of a thousand objects is much cheaper than one by one."""
    containers = [document] if isinstance(document, CONTAINERS) else []
    for _ in range(LEVELS):
        containers = [part for each in containers for part in parts_of(each) if isinstance(part, CONTAINERS)]
    if containers:
        raise ValueError("nested too deeply")


def parts_of(document: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return document.values() if isinstance(document, dict) else document


def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate key")
    return members


def refuse_constant(_name: str) -> float:
    raise ValueError("no JSON number")


DECODER = json.JSONDecoder(object_pairs_hook=without_duplicates, parse_constant=refuse_constant)
