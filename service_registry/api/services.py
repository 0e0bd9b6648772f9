"""Services over HTTP."""

from typing import ClassVar

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from service_registry import manager, permissions
from service_registry.api.authentication import caller_of
from service_registry.api.openapi import parameters, problems
from service_registry.api.renderer import http_response
from service_registry.database.transactions import with_retries
from service_registry.http import database_reads
from service_registry.http.operations import result
from service_registry.http.validation import validate_one, validate_query
from service_registry.permissions import Action
from service_registry.schemas import (
    DiscoveryQuery,
    ListQuery,
    OwnedService,
    OwnersRequest,
    ReleasedService,
    ReleaseRequest,
    ServiceInstances,
    ServiceKey,
    ServiceOwners,
    ServicePage,
    ServiceQuery,
    ServiceRelease,
)


class ServiceViewSet(ViewSet):
    """The list of services, discovery, owners, deletion and release. Under ASGI `asgi/reads` answers the first two."""

    http_method_names = ("get", "head", "put", "post", "delete")
    allowed_to: ClassVar[dict[str, Action]] = {
        "list": permissions.LIST_SERVICES,
        "retrieve": permissions.LIST_SERVICES,
        "set_owners": permissions.MANAGE_SERVICE,
        "delete_service": permissions.MANAGE_SERVICE,
        "release": permissions.RELEASE,
    }

    @extend_schema(
        operation_id="list_services",
        summary="List services with their instances",
        parameters=parameters(ListQuery),
        responses={200: ServicePage, **problems()},
    )
    def list(self, request: Request) -> HttpResponse:
        query = validate_query(ListQuery, request.query_params)
        return http_response(with_retries(lambda: database_reads.list_services(query)))

    @extend_schema(
        operation_id="discover",
        summary="Find the instances of a service that should get traffic",
        parameters=parameters(DiscoveryQuery, "name"),
        responses={200: ServiceInstances, 304: None, **problems(404, 410)},
    )
    def retrieve(self, request: Request, name: str) -> HttpResponse:
        query = validate_query(DiscoveryQuery, request.query_params, name=name)
        if_none_match = request.headers.get("If-None-Match")
        return http_response(with_retries(lambda: database_reads.discover(query, if_none_match)))

    @extend_schema(
        operation_id="set_owners",
        summary="Set the owners of a service, and create it when it does not exist",
        parameters=parameters(ServiceQuery, "name"),
        request=OwnersRequest,
        responses={200: OwnedService, 201: OwnedService, **problems(413, 415)},
    )
    def set_owners(self, request: Request, name: str) -> Response:
        query = validate_query(ServiceQuery, request.query_params, name=name)
        statement = validate_one(OwnersRequest, request.data)
        key = {"namespace": query.namespace, "name": query.name}
        done = result(*manager.set_owners([ServiceOwners(**key, **statement.model_dump())], caller_of(request)))
        return Response({**key, "owners": done.owners}, 201 if done.created else 200)

    @extend_schema(
        operation_id="delete_service",
        summary="Delete an empty service; its name stays reserved to its last owners",
        parameters=parameters(ServiceQuery, "name"),
        responses={204: None, **problems(404, 409)},
    )
    def delete_service(self, request: Request, name: str) -> Response:
        query = validate_query(ServiceQuery, request.query_params, name=name)
        result(manager.delete_service(query.namespace, query.name, query.reason, caller_of(request)))
        return Response(status=204)

    @extend_schema(
        operation_id="release_service",
        summary="End the protection of a service",
        description="The next sweep expires its instances that are past their deadline; for 15 minutes no instance of "
        "this service is protected.",
        parameters=parameters(ServiceKey, "name"),
        request=ReleaseRequest,
        responses={200: ReleasedService, **problems(404, 413, 415)},
    )
    def release(self, request: Request, name: str) -> Response:
        query = validate_query(ServiceKey, request.query_params, name=name)
        statement = validate_one(ReleaseRequest, request.data)
        order = ServiceRelease(**query.model_dump(), reason=statement.reason)
        return Response({"released": result(*manager.release([order], caller_of(request))).protected})
