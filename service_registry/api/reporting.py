"""What a request turned out to be, told once: a line in the log, and the counters."""

import functools
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, HttpResponseBase

from service_registry import logs, metrics
from service_registry.api.errors import code_of_page
from service_registry.api.operation import of
from service_registry.caller import Caller
from service_registry.http import bulk
from service_registry.http.request_id import id_of

logger = logging.getLogger(__name__)

# What the views' actions are called, where the view has its part in that.
VERBS = {
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


def verb_of(request: HttpRequest) -> str:
    """One of a few names, whatever was asked: the action of a view of the API, else the part of the site."""
    match = request.resolver_match
    if match is None:
        return "unknown"
    view: Any = match.func
    if hasattr(view, "actions"):
        action = str(view.actions.get((request.method or "").lower(), "unknown"))
        return VERBS.get((view.cls.__name__, action), action)
    return match.namespace or match.url_name or str(getattr(view, "__name__", "unknown"))


@functools.cache
def readable(route: str) -> str:
    """A route of the URLconf as the README writes it. There are as many as the URLconf has."""
    return "/" + re.sub(r"\(\?P<(\w+)>[^)]*\)", r"{\1}", route).replace("^", "").removesuffix("/?$")


def route_of(request: HttpRequest) -> str | None:
    return readable(request.resolver_match.route) if request.resolver_match else None


def subject_of(request: HttpRequest) -> tuple[str | None, str | None, str | None]:
    """Namespace, service and instance: from the path where they stand there, else from the body."""
    operation = of(request)
    in_path = request.resolver_match.kwargs if request.resolver_match else {}
    service_name = in_path.get("service_name") or in_path.get("name") or operation.service_name
    instance_id = in_path.get("instance_id") or operation.instance_id
    return operation.namespace or namespace_of(request), service_name, instance_id


def namespace_of(request: HttpRequest) -> str | None:
    try:
        return request.GET.get("namespace")
    except SuspiciousOperation:  # more parameters than Django reads
        return None


def actor_of(request: HttpRequest) -> str | None:
    """Who asked, by what the request has found out already: nothing is read for the sake of a log."""
    user = vars(request).get("user")
    if type(user) is Caller:
        return user.actor
    operator = vars(request).get("_cached_user")
    return operator.actor if operator is not None and operator.is_authenticated else None


def outcomes_of(request: HttpRequest, response: HttpResponseBase) -> Counter[str]:
    """`ok`, `created` or the code of the error, an item each."""
    data = getattr(response, "data", None)
    items = of(request).items
    if items and response.status_code == 200 and isinstance(data, dict):
        return bulk.counts(data)
    return Counter({outcome(response.status_code, data): items or 1})


def outcome(status: int, data: Any) -> str:
    if status >= 400:
        return str(data["code"]) if isinstance(data, Mapping) and "code" in data else code_of_page(status)
    return "created" if status == 201 else "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What there is to tell of a request, whichever door answered it. `outcomes` are an item each, `unchanged` how many
    of them changed nothing that a reader sees, and `refusals` the beats that renewed nothing, by reason."""

    method: str | None
    verb: str
    route: str | None
    status: int
    outcomes: Counter[str]
    request_id: str
    actor: str | None
    namespace: str | None
    service_name: str | None
    instance_id: str | None
    items: int | None = None
    unchanged: int = 0
    refusals: Mapping[str, int] = field(default_factory=dict)
    error: BaseException | None = None


def report(request: HttpRequest, response: HttpResponseBase, seconds: float) -> None:
    """Tell of a request that Django answered."""
    tell(answered(request, response), seconds)


def answered(request: HttpRequest, response: HttpResponseBase) -> Answered:
    """Costs no statement."""
    verb, operation = verb_of(request), of(request)
    namespace, service_name, instance_id = subject_of(request)
    return Answered(
        method=request.method,
        verb=verb,
        route=route_of(request),
        status=response.status_code,
        outcomes=outcomes_of(request, response),
        request_id=id_of(request),
        actor=actor_of(request),
        namespace=namespace,
        service_name=service_name,
        instance_id=instance_id,
        items=operation.items,
        unchanged=operation.unchanged,
        refusals=refusals_of(request, response) if verb == "heartbeat" else {},
        error=operation.error,
    )


def tell(this: Answered, seconds: float) -> None:
    """Count it, and log it where it is worth a line."""
    metrics.count_request(this.method, this.verb, this.status, this.outcomes, seconds)
    metrics.count_refused_heartbeats(this.refusals)
    if is_worth_a_line(this):
        write_line(this, seconds)


def refusals_of(request: HttpRequest, response: HttpResponseBase) -> Counter[str]:
    """The beats that renewed nothing, by the reason of the problem where it has one, else by its code."""
    data = getattr(response, "data", None) or {}
    if response.status_code >= 400:
        return refusals([{"code": outcome(response.status_code, data)} | data] * (of(request).items or 1))
    return refusals(bulk.errors(data) if "results" in data else [])


def refusals(errors: Iterable[Mapping[str, Any]]) -> Counter[str]:
    return Counter(str(error.get("reason") or error["code"]) for error in errors)


# Probes, scrapes and files are asked for all the time.
QUIET = {"livez", "readyz", "metrics", "unknown"}


def is_worth_a_line(this: Answered) -> bool:
    if this.status >= 500 or this.verb != "heartbeat":
        return this.status >= 400 or this.verb not in QUIET
    changed = this.outcomes.total() > this.unchanged
    return {"all": True, "none": False}.get(settings.REGISTRY_LOG_HEARTBEATS, changed)


def write_line(this: Answered, seconds: float) -> None:
    fields = {
        "request_id": this.request_id,
        "method": this.method,
        "route": this.route,
        "status": this.status,
        "code": next(iter(this.outcomes)) if this.status >= 400 else None,
        "actor": this.actor,
        "namespace": this.namespace,
        "service_name": this.service_name,
        "instance_id": this.instance_id,
        "items": this.items,
        "outcomes": this.outcomes,
        "duration_ms": round(seconds * 1000, 3),
        "error": this.error,
    }
    logs.log_event(logger, level_of(this.status), this.verb, fields)


def level_of(status: int) -> int:
    """That a caller is refused is no fault of the registry's."""
    if status < 500:
        return logging.INFO
    return logging.WARNING if status == 503 else logging.ERROR
