"""The history of changes over HTTP."""

from typing import ClassVar

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.viewsets import ViewSet

from service_registry import permissions
from service_registry.api.authentication import asking
from service_registry.api.openapi import parameters
from service_registry.api.parting import Parted
from service_registry.api.services import as_json
from service_registry.changelog.history import check_service_is_named, read_history
from service_registry.database.retries import with_retries
from service_registry.http import cursors, memory_budget
from service_registry.http.validation import validate_query
from service_registry.json_text import dump_json_with_array
from service_registry.permissions import Action
from service_registry.schemas import ChangePage, ChangesQuery


class ChangeViewSet(Parted, ViewSet):
    """What happened, with its author, reason and evidence."""

    http_method_names = ("get", "head")
    allowed_to: ClassVar[dict[str, Action]] = {"list": permissions.READ_CHANGES}
    problems: ClassVar[dict[str, tuple[int, ...]]] = {"list": (404,)}

    @extend_schema(
        operation_id="list_changes",
        summary="Show the history, newest last",
        description="All of it with `view_change`; else that of one's own service, named by `service`. A page that had "
        "to search may be short, or empty: there are more as long as `next` is not null.",
        parameters=parameters(ChangesQuery),
        responses={200: ChangePage},
    )
    def list(self, request: Request) -> HttpResponse:
        caller = asking(request)
        check_service_is_named(request.query_params.get("service"), caller)  # a 403 goes before what else is wrong
        query = validate_query(ChangesQuery, request.query_params)
        after = cursors.decode_change(query.after) if query.after is not None else None
        memory_budget.demand()
        page = with_retries(lambda: read_history(query, caller, after))
        members = {"next": cursors.encode_change(page.next) if page.next else None}
        return as_json(
            dump_json_with_array(members, "changes", f"[{','.join(each.full for each in page.changes)}]"), page.read_at
        )
