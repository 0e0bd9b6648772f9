"""Services over HTTP."""

from datetime import datetime
from typing import ClassVar

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from service_registry import changelog, manager, permissions
from service_registry.api.authentication import asking
from service_registry.api.openapi import parameters
from service_registry.api.parting import Parted
from service_registry.api.registration import unwrapped
from service_registry.api.renderer import INDEX_HEADER
from service_registry.database.retries import with_retries
from service_registry.http import cursors, etag, memory_budget
from service_registry.http.validation import validate_one, validate_query
from service_registry.permissions import Action
from service_registry.queries import as_of, catalogue
from service_registry.queries.filters import LISTED_STATES, resolve_filters
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


def as_json(text: str, index: str, **headers: str) -> HttpResponse:
    """An answer that is JSON already."""
    return HttpResponse(text.encode(), "application/json", headers={INDEX_HEADER: index, **headers})


class ServiceViewSet(Parted, ViewSet):
    """The list of services, discovery of one, and what those do who manage or operate them."""

    http_method_names = ("get", "head", "put", "post", "delete")
    allowed_to: ClassVar[dict[str, Action]] = {
        "list": permissions.LIST_SERVICES,
        "retrieve": permissions.LIST_SERVICES,
        "set_owners": permissions.MANAGE_SERVICE,
        "delete_service": permissions.MANAGE_SERVICE,
        "release": permissions.RELEASE,
    }
    problems: ClassVar[dict[str, tuple[int, ...]]] = {
        "retrieve": (404, 410),
        "set_owners": (413, 415),
        "delete_service": (404, 409),
        "release": (404, 413, 415),
    }

    @extend_schema(
        operation_id="list_services",
        summary="List services with their instances",
        parameters=parameters(ListQuery),
        responses={200: ServicePage},
    )
    def list(self, request: Request) -> HttpResponse:
        query = validate_query(ListQuery, request.query_params)
        after = cursors.place_of(query.after)
        memory_budget.demand()
        page = with_retries(lambda: catalogue.list_services(query, after))
        return as_json(cursors.written(page), page.read_at)

    @extend_schema(
        operation_id="discover",
        summary="Find the instances of a service that should get traffic",
        parameters=parameters(DiscoveryQuery, "name"),
        responses={200: ServiceInstances, 304: None},
    )
    def retrieve(self, request: Request, name: str) -> HttpResponse:
        query = validate_query(DiscoveryQuery, request.query_params, name=name)
        if query.at:
            return self.discovered_then(query, query.at)
        return with_retries(lambda: self.discovered(request, query))

    def discovered_then(self, query: DiscoveryQuery, at: datetime) -> HttpResponse:
        asked = resolve_filters(query, ["UP"], LISTED_STATES)
        memory_budget.demand()
        then = with_retries(lambda: as_of.discover(query.namespace, query.name, asked, at))
        return as_json(then.text, then.index)

    def discovered(self, request: Request, query: DiscoveryQuery) -> HttpResponse:
        newest, newest_of_service = ends = changelog.read_newest_indexes(query.namespace, query.name)
        tag = etag.tag_of(newest_of_service or newest, etag.question_of(query))
        if newest_of_service and etag.matches(request.headers.get("If-None-Match"), tag):
            return HttpResponse(status=304, headers={INDEX_HEADER: newest, "ETag": tag})
        memory_budget.demand()
        answer = catalogue.discover(query.namespace, query.name, resolve_filters(query, ["UP"], LISTED_STATES), ends)
        return as_json(answer.text, answer.index, ETag=tag)

    @extend_schema(
        operation_id="set_owners",
        summary="Give a service its owners, and make it when it does not exist",
        parameters=parameters(ServiceQuery, "name"),
        request=OwnersRequest,
        responses={200: OwnedService, 201: OwnedService},
    )
    def set_owners(self, request: Request, name: str) -> Response:
        query = validate_query(ServiceQuery, request.query_params, name=name)
        statement = validate_one(OwnersRequest, request.data)
        key = {"namespace": query.namespace, "name": query.name}
        done = unwrapped(manager.set_owners([ServiceOwners(**key, **statement.model_dump())], asking(request)))
        return Response({**key, "owners": done.owners}, 201 if done.created else 200)

    @extend_schema(
        operation_id="delete_service",
        summary="Delete an empty service; its name stays reserved to its last owners",
        parameters=parameters(ServiceQuery, "name"),
        responses={204: None},
    )
    def delete_service(self, request: Request, name: str) -> Response:
        query = validate_query(ServiceQuery, request.query_params, name=name)
        refusal = manager.delete_service(query.namespace, query.name, query.reason, asking(request))
        if refusal:
            raise refusal
        return Response(status=204)

    @extend_schema(
        operation_id="release_service",
        summary="Let go what is held in a service past its deadline",
        description="The next sweep expires it; for 15 minutes nobody is held in this service.",
        parameters=parameters(ServiceKey, "name"),
        request=ReleaseRequest,
        responses={200: ReleasedService},
    )
    def release(self, request: Request, name: str) -> Response:
        query = validate_query(ServiceKey, request.query_params, name=name)
        statement = validate_one(ReleaseRequest, request.data)
        order = ServiceRelease(**query.model_dump(), reason=statement.reason)
        return Response({"released": unwrapped(manager.release([order], asking(request))).protected})
