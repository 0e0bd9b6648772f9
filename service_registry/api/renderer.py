"""The one renderer, whatever a caller accepts."""

from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import BaseRenderer

INDEX_HEADER = "X-Registry-Index"


class RegistryJSONRenderer(BaseRenderer):
    """JSON in UTF-8 by one call, for answers and problems alike."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        return b"" if data is None else to_json(data)


class IgnoreAccept(BaseContentNegotiation):
    """`Accept` is looked at by the watch alone."""

    def select_parser(self, request: Any, parsers: Any) -> Any:
        content_type = (request.content_type or "").partition(";")[0].strip().lower()
        return next((parser for parser in parsers if parser.media_type == content_type), None)

    def select_renderer(self, request: Any, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type
