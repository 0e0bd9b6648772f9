"""The watch where nobody waits: what came after an index, at once. The asynchronous door waits, and streams."""

from collections.abc import Sequence
from typing import ClassVar

from django.http import HttpResponse, QueryDict
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.viewsets import ViewSet

from service_registry import changelog, permissions
from service_registry.api.authentication import asking
from service_registry.api.openapi import parameters
from service_registry.api.parting import Parted
from service_registry.api.services import as_json
from service_registry.changelog.read import RecordedChange, owners_in_evidence
from service_registry.database.retries import with_retries
from service_registry.http.validation import validate_query
from service_registry.json_text import dump_json_with_array
from service_registry.models import Service
from service_registry.permissions import Action
from service_registry.schemas import WatchQuery, WatchResponse

LAST_EVENT_ID = OpenApiParameter(
    "Last-Event-ID", str, OpenApiParameter.HEADER, description="Where a stream broke off; stands before `index`."
)


def asked(query: QueryDict, last_event_id: str | None) -> WatchQuery:
    """What a request wants to watch. A browser sends the last index it saw beside an older one in the address. Raises
    InvalidInput."""
    if last_event_id:
        query = query.copy()
        query["index"] = last_event_id
    return validate_query(WatchQuery, query)


class WatchViewSet(Parted, ViewSet):
    """Changes as they happen."""

    http_method_names = ("get", "head")
    allowed_to: ClassVar[dict[str, Action]] = {"list": permissions.WATCH}
    problems: ClassVar[dict[str, tuple[int, ...]]] = {"list": (410, 429)}

    @extend_schema(
        operation_id="watch",
        summary="Be told of changes: a stream of events, or the next of them",
        parameters=[*parameters(WatchQuery), LAST_EVENT_ID],
        responses={
            (200, "application/json"): WatchResponse,
            (200, "text/event-stream"): OpenApiResponse(
                OpenApiTypes.STR,
                "Events `change` (`id` its index, `data` a change) and `sync` (nothing came; `id` the index), until "
                "`expired` (the token) or `resync` (start over) ends the stream.",
            ),
        },
    )
    def list(self, request: Request) -> HttpResponse:
        query = asked(request.query_params, request.headers.get("Last-Event-ID"))
        return with_retries(lambda: self.told(request, query))

    def told(self, request: Request, query: WatchQuery) -> HttpResponse:
        end = changelog.read_newest_index()
        found = changelog.read_after(query.index or end, changelog.CHANGES_PER_PAGE, query.service, query.namespace)
        owners = owners_of({(change.namespace, change.service_name) for change in found})
        caller = asking(request)
        texts = [change.full if caller.sees_authors(owners_now(change, owners)) else change.public for change in found]
        index = found[-1].index if found else end
        return as_json(dump_json_with_array({"index": index}, "changes", f"[{','.join(texts)}]"), end)


def owners_now(change: RecordedChange, owners: dict[tuple[str | None, str | None], Sequence[str]]) -> Sequence[str]:
    """Whose service a change is about: as it stands, and as the change itself says of one that is gone."""
    now = owners.get((change.namespace, change.service_name))
    return owners_in_evidence(change.kind, change.private) if now is None else now


def owners_of(keys: set[tuple[str | None, str | None]]) -> dict[tuple[str | None, str | None], Sequence[str]]:
    """The owners of services by namespace and name, those of other namespaces too."""
    services = Service.objects.filter(name__in=[name for _namespace, name in keys if name])
    return {(service.namespace, service.name): service.owners for service in services}
