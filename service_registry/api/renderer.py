"""JSON for every response of DRF views, whatever the client accepts."""

from collections.abc import Mapping
from typing import Any

from django.http import HttpResponse
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import BaseRenderer

from service_registry.http.responses import Response, render


class RegistryJSONRenderer(BaseRenderer):
    """Render documents and problems as JSON in UTF-8."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        return render(data)


class IgnoreAccept(BaseContentNegotiation):
    """Ignore the Accept header, which only the watch looks at."""

    def select_parser(self, request: Any, parsers: Any) -> Any:
        content_type = (request.content_type or "").partition(";")[0].strip().lower()
        return next((parser for parser in parsers if parser.media_type == content_type), None)

    def select_renderer(self, request: Any, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


def http_response(response: Response) -> HttpResponse:
    """Return a response of the wire layer as Django's."""
    http = HttpResponse(response.body, response.media_type, response.status, headers=response.headers)
    if not response.body:
        del http["Content-Type"]
    return http
