"""Request log entries for requests that Django answers."""

import functools
import re
from typing import Any

from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, HttpResponseBase

from service_registry.caller import Caller
from service_registry.http.problems import outcome
from service_registry.http.request_log import RequestLogEntry, choose_request_id

# Names of operations where those of the viewset's methods would not distinguish them.
OPERATIONS = {
    ("ServiceViewSet", "list"): "list",
    ("ServiceViewSet", "retrieve"): "discover",
    ("WatchViewSet", "list"): "watch",
    ("InstanceViewSet", "retrieve"): "instance",
    ("InstanceViewSet", "retrieve_by_id"): "instance",
    ("InstanceViewSet", "set_status"): "override",
    ("InstanceViewSet", "clear_status"): "clear_override",
    ("ChangeViewSet", "list"): "changes",
    ("MetricsView", "export"): "metrics",
}


def log_entry(request: Any) -> RequestLogEntry:
    """Return the log entry of a Django or DRF request.

    It is made at the first call, by the middleware. A DRF request has the attributes of Django's request as well.
    """
    entry: RequestLogEntry | None = getattr(request, "log_entry", None)
    if entry is None:
        request_id = choose_request_id(request.headers.get("X-Request-Id", ""))
        entry = RequestLogEntry(operation="unknown", route=None, method=request.method, request_id=request_id)
        request.log_entry = entry
        request.request_id = request_id  # for lines that Django's loggers and the admin's actions write
    return entry


def complete(request: HttpRequest, response: HttpResponseBase) -> RequestLogEntry:
    """Return the entry with all that is known once there is a response.

    It runs no SQL.
    """
    entry = log_entry(request)
    match = request.resolver_match
    in_path = match.kwargs if match else {}
    entry.operation = operation_of(request)
    entry.route = readable_route(match.route) if match else None
    entry.actor = actor_of(request) or entry.actor
    entry.namespace = entry.namespace or namespace_of(request)
    entry.service_name = in_path.get("service_name") or in_path.get("name") or entry.service_name
    entry.instance_id = in_path.get("instance_id") or entry.instance_id
    code = outcome(response.status_code, data := getattr(response, "data", None))
    if response.status_code >= 400 and entry.outcome is None:
        entry.note_problem(response.status_code, {**(data or {}), "code": code})
    else:
        entry.note_response(response.status_code, code)
    return entry


def operation_of(request: HttpRequest) -> str:
    """Return the name of the operation, or else that of the part of the site.

    There are only a few names, whatever was requested.
    """
    match = request.resolver_match
    if match is None:
        return "unknown"
    view: Any = match.func
    if hasattr(view, "actions"):
        action = str(view.actions.get((request.method or "").lower(), "unknown"))
        return OPERATIONS.get((view.cls.__name__, action), action)
    return match.namespace or match.url_name or str(getattr(view, "__name__", "unknown"))


@functools.cache
def readable_route(route: str) -> str:
    """Return a route of the URLconf with its parameters in braces."""
    return "/" + re.sub(r"\(\?P<(\w+)>[^)]*\)", r"{\1}", route).replace("^", "").removesuffix("/?$")


def namespace_of(request: HttpRequest) -> str | None:
    try:
        return request.GET.get("namespace")
    except SuspiciousOperation:  # more parameters than Django reads
        return None


def actor_of(request: HttpRequest) -> str | None:
    """Return who made the request, if the view has found out.

    Nothing is read for the sake of a log line.
    """
    user = vars(request).get("user")
    if type(user) is Caller:
        return user.actor
    operator = vars(request).get("_cached_user")
    return operator.actor if operator is not None and operator.is_authenticated else None
