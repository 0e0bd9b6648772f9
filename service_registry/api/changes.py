"""The history of changes over HTTP."""

from typing import ClassVar

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.viewsets import ViewSet

from service_registry import permissions
from service_registry.api.authentication import caller_of
from service_registry.api.openapi import parameters, problems
from service_registry.api.renderer import http_response
from service_registry.changelog.history import check_service_is_named, read_history
from service_registry.database.transactions import with_retries
from service_registry.http import cursors
from service_registry.http.memory_budget import require_capacity
from service_registry.http.responses import INDEX_HEADER
from service_registry.http.responses import Response as WireResponse
from service_registry.http.validation import validate_query
from service_registry.json_text import dump_json_with_array
from service_registry.permissions import Action
from service_registry.schemas import ChangePage, ChangesQuery


class ChangeViewSet(ViewSet):
    """The change log, with actor, reason and evidence for those who may see them."""

    http_method_names = ("get", "head")
    allowed_to: ClassVar[dict[str, Action]] = {"list": permissions.READ_CHANGES}

    @extend_schema(
        operation_id="list_changes",
        summary="List changes, newest last",
        description="All changes with `view_change`; without it those of a service that one of the caller's groups "
        "owns, named by `service`, with `actor`, `reason` and `evidence` where one of these groups owned it at the "
        "time of the change. A page may be short or empty because of the filters: there are more pages as long "
        "as `next` is not null.",
        parameters=parameters(ChangesQuery),
        responses={200: ChangePage, **problems(404)},
    )
    def list(self, request: Request) -> HttpResponse:
        caller = caller_of(request)
        # Refused before the rest of the query is validated: 403 precedes 400.
        check_service_is_named(request.query_params.get("service"), caller)
        query = validate_query(ChangesQuery, request.query_params)
        after = cursors.decode_change(query.after)
        require_capacity()
        page = with_retries(lambda: read_history(query, caller, after))
        members = {"next": cursors.encode_change(page.next) if page.next else None}
        body = dump_json_with_array(members, "changes", f"[{','.join(each.text_for(caller) for each in page.changes)}]")
        return http_response(WireResponse(200, body.encode(), {INDEX_HEADER: page.read_at}))
