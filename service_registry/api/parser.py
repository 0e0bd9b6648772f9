"""The parser of request bodies in DRF views."""

from collections.abc import Mapping
from typing import IO, Any

from django.conf import settings
from rest_framework.parsers import BaseParser

from service_registry.api.request_log import log_entry
from service_registry.exceptions import BodyTooLarge
from service_registry.http.strict_json import parse_body, require_uncompressed


class StrictJSONParser(BaseParser):
    """Parse a body as `http.strict_json` does."""

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """Return the document in the body.

        Raises CompressedBody, InvalidInput, and BodyTooLarge by the announced length before anything is read.
        """
        assert parser_context is not None, "DRF gives a context with every request"
        request = parser_context["request"]
        require_uncompressed(request.headers.get("Content-Encoding"))
        if int(request.META.get("CONTENT_LENGTH") or 0) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            raise BodyTooLarge
        document = parse_body(stream.read(settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1))
        log_entry(request).note_body(document)
        return document
