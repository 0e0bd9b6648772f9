"""Instances over HTTP."""

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from service_registry import manager, permissions
from service_registry.api.authentication import caller_of
from service_registry.api.openapi import parameters, problems
from service_registry.database.transactions import with_retries
from service_registry.http.operations import result
from service_registry.http.responses import INDEX_HEADER
from service_registry.http.validation import validate_one, validate_query
from service_registry.permissions import Action
from service_registry.queries.instance import find_instance
from service_registry.schemas import (
    ClearOverrideQuery,
    InstanceByIdQuery,
    InstanceDetails,
    InstanceOverride,
    InstanceQuery,
    OverriddenInstance,
    OverrideRequest,
)
from service_registry.schemas.requests import InstanceKey


class InstanceViewSet(ViewSet):
    """An instance with its lease, and the override of its status."""

    http_method_names = ("get", "head", "put", "delete")
    allowed_to: ClassVar[dict[str, Action]] = {
        "retrieve": permissions.READ_INSTANCE,
        "retrieve_by_id": permissions.READ_INSTANCE,
        "set_status": permissions.OVERRIDE,
        "clear_status": permissions.OVERRIDE,
    }

    @extend_schema(
        operation_id="instance",
        summary="Show an instance with its lease",
        parameters=parameters(InstanceQuery, "service_name", "instance_id"),
        responses={200: InstanceDetails, **problems(404)},
    )
    def retrieve(self, request: Request, service_name: str, instance_id: str) -> Response:
        key = {"service_name": service_name, "instance_id": instance_id}
        query = validate_query(InstanceQuery, request.query_params, **key)
        return self.respond_with_instance(request, query.namespace, query.service_name, query.instance_id)

    @extend_schema(
        operation_id="instance_by_id",
        summary="Show an instance by its id alone",
        parameters=parameters(InstanceByIdQuery, "instance_id"),
        responses={200: InstanceDetails, **problems(404, 409)},
    )
    def retrieve_by_id(self, request: Request, instance_id: str) -> Response:
        query = validate_query(InstanceByIdQuery, request.query_params, instance_id=instance_id)
        return self.respond_with_instance(request, query.namespace, None, query.instance_id)

    def respond_with_instance(
        self, request: Request, namespace: str, service_name: str | None, instance_id: str
    ) -> Response:
        found = with_retries(lambda: find_instance(namespace, service_name, instance_id))
        return Response(found.document_for(caller_of(request)), headers={INDEX_HEADER: found.index})

    @extend_schema(
        operation_id="override",
        summary="Override the status of an instance",
        description="The override applies until `until`, or until it is cleared. It survives heartbeats, registration "
        "and removal of the instance.",
        parameters=parameters(InstanceQuery, "service_name", "instance_id"),
        request=OverrideRequest,
        responses={200: OverriddenInstance, **problems(404, 413, 415)},
    )
    def set_status(self, request: Request, **key: str) -> Response:
        query = validate_query(InstanceQuery, request.query_params, **key)
        return self.override(request, query, validate_one(OverrideRequest, request.data).model_dump())

    @extend_schema(
        operation_id="clear_override",
        summary="Clear the override of an instance",
        description="An override that was set with `operate_instance` can be cleared only with it.",
        parameters=parameters(ClearOverrideQuery, "service_name", "instance_id"),
        responses={200: OverriddenInstance, **problems(404)},
    )
    def clear_status(self, request: Request, **key: str) -> Response:
        query = validate_query(ClearOverrideQuery, request.query_params, **key)
        return self.override(request, query, {"reason": query.reason})

    def override(self, request: Request, key: InstanceKey, values: dict[str, Any]) -> Response:
        names = {"namespace": key.namespace, "service_name": key.service_name, "instance_id": key.instance_id}
        done = result(*manager.override([InstanceOverride(**names, **values)], caller_of(request)))
        return Response({**names, "override": done.override, "instance": done.instance})
