"""The health of services and of instances over HTTP, for load balancers and deployment scripts."""

from typing import ClassVar

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from service_registry import permissions
from service_registry.api.openapi import parameters, problems
from service_registry.api.request_log import log_entry
from service_registry.database.transactions import with_retries
from service_registry.http.problems import RETRY_AFTER_SECONDS
from service_registry.http.request_log import NOT_HEALTHY
from service_registry.http.responses import INDEX_HEADER, JSON
from service_registry.http.validation import validate_query
from service_registry.permissions import Action
from service_registry.queries import health
from service_registry.queries.health import HealthReport
from service_registry.schemas import InstanceHealthQuery, ServiceHealth, ServiceHealthQuery, ShownInstanceHealth

DESCRIPTION = (
    "Without `require` the answer is 200. A 503 with a problem is an outage of the registry, and says nothing \
about the instances."
)


class HealthViewSet(ViewSet):
    """The health of a service and of an instance: 503 where fewer are healthy than the caller requires."""

    http_method_names = ("get", "head")
    allowed_to: ClassVar[dict[str, Action]] = {
        "service_health": permissions.LIST_SERVICES,
        "instance_health": permissions.READ_INSTANCE,
    }

    @extend_schema(
        operation_id="service_health",
        summary="Count the healthy instances of a service, with the reasons of the others",
        description=DESCRIPTION,
        parameters=parameters(ServiceHealthQuery, "name"),
        responses={200: ServiceHealth, (503, JSON): ServiceHealth, **problems(404)},
    )
    def service_health(self, request: Request, name: str) -> Response:
        query = validate_query(ServiceHealthQuery, request.query_params, name=name)
        report = with_retries(lambda: health.read_service_health(query.namespace, query.name))
        return respond(request, report, query.require)

    @extend_schema(
        operation_id="instance_health",
        summary="Show the health of an instance",
        description=DESCRIPTION,
        parameters=parameters(InstanceHealthQuery, "service_name", "instance_id"),
        responses={200: ShownInstanceHealth, (503, JSON): ShownInstanceHealth, **problems(404)},
    )
    def instance_health(self, request: Request, **key: str) -> Response:
        query = validate_query(InstanceHealthQuery, request.query_params, **key)
        report = with_retries(
            lambda: health.read_instance_health(query.namespace, query.service_name, query.instance_id)
        )
        return respond(request, report, query.require)


def respond(request: Request, report: HealthReport, require: int) -> Response:
    """Return the report with 200, or with 503 where fewer than `require` instances are healthy."""
    headers = {INDEX_HEADER: report.read_at}
    if report.healthy >= require:
        return Response(report.document, headers=headers)
    log_entry(request).outcome = NOT_HEALTHY
    return Response(report.document, 503, headers=headers | {"Retry-After": str(RETRY_AFTER_SECONDS)})
