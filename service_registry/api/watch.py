"""The watch without waiting: changes after an index, at once.

Under ASGI `asgi/watch` answers and waits.
"""

from typing import ClassVar

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.viewsets import ViewSet

from service_registry import changelog, permissions
from service_registry.api.authentication import caller_of
from service_registry.api.openapi import parameters, problems
from service_registry.api.renderer import http_response
from service_registry.caller import Caller
from service_registry.database.transactions import with_retries
from service_registry.http.responses import INDEX_HEADER, Response
from service_registry.http.validation import validate_watch_query
from service_registry.json_text import dump_json_with_array
from service_registry.permissions import Action
from service_registry.schemas import WatchQuery, WatchResponse

LAST_EVENT_ID = OpenApiParameter(
    "Last-Event-ID",
    str,
    OpenApiParameter.HEADER,
    description="The last index that a broken stream delivered. It wins over `index`.",
)


class WatchViewSet(ViewSet):
    """The changes after an index."""

    http_method_names = ("get", "head")
    allowed_to: ClassVar[dict[str, Action]] = {"list": permissions.WATCH}

    @extend_schema(
        operation_id="watch",
        summary="Watch changes: as a stream of events, or by long polling",
        parameters=[*parameters(WatchQuery), LAST_EVENT_ID],
        responses={
            (200, "application/json"): WatchResponse,
            (200, "text/event-stream"): OpenApiResponse(
                OpenApiTypes.STR,
                "Events `change` (`id`: its index, `data`: a change) and `sync` (no change for a while; `id`: the "
                "index). The stream ends with `expired` when the token is not accepted any more, with `forbidden` when "
                "the caller may not read any more, or with `resync` when the client has to read the list again.",
            ),
            **problems(410),
        },
    )
    def list(self, request: Request) -> HttpResponse:
        query = validate_watch_query(request.query_params, request.headers.get("Last-Event-ID"))
        return http_response(with_retries(lambda: read_changes(query, caller_of(request))))


def read_changes(query: WatchQuery, caller: Caller) -> Response:
    """Return the changes after an index. Raises IndexGone.

    Actors and reasons are included where the caller may see them.
    """
    newest = changelog.read_newest_index()
    changes = changelog.read_after(query.index or newest, changelog.CHANGES_PER_PAGE, query.service, query.namespace)
    texts = [change.text_for(caller) for change in changes]
    index = changes[-1].index if changes else newest
    body = dump_json_with_array({"index": index}, "changes", f"[{','.join(texts)}]")
    return Response(200, body.encode(), {INDEX_HEADER: newest})
