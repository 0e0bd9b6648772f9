"""The reads over HTTP."""

from typing import ClassVar

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from service_registry import catalogue, changes, permissions
from service_registry.api import etag, pagination
from service_registry.api.authentication import asking
from service_registry.api.openapi import parameters
from service_registry.api.validation import from_query
from service_registry.filters import LISTED, wanted
from service_registry.permissions import Action
from service_registry.schemas import (
    DiscoveryQuery,
    InstanceQuery,
    LeasedInstance,
    ListQuery,
    ServiceInstances,
    ServicePage,
)

INDEX_HEADER = "X-Registry-Index"


def as_json(text: str, index: str, **headers: str) -> HttpResponse:
    """An answer that is JSON already."""
    return HttpResponse(text.encode(), "application/json", headers={INDEX_HEADER: index, **headers})


class ServiceViewSet(ViewSet):
    """The list of services, and discovery of one."""

    http_method_names = ("get", "head")
    allowed_to: ClassVar[dict[str, Action]] = {"list": permissions.LIST_SERVICES, "retrieve": permissions.LIST_SERVICES}
    problems: ClassVar[dict[str, tuple[int, ...]]] = {"retrieve": (404,)}

    @extend_schema(
        operation_id="list_services",
        summary="List services with their instances",
        parameters=parameters(ListQuery),
        responses={200: ServicePage},
    )
    def list(self, request: Request) -> HttpResponse:
        query = from_query(ListQuery, request.query_params)
        after = pagination.decode(query.after) if query.after is not None else None
        page = catalogue.page(query, after)
        members = {"index": page.index, "next": pagination.encode(page.next) if page.next else None}
        return as_json(catalogue.with_array(members, "services", page.services), page.index)

    @extend_schema(
        operation_id="discover",
        summary="Find the instances of a service that should get traffic",
        parameters=parameters(DiscoveryQuery, "name"),
        responses={200: ServiceInstances, 304: None},
    )
    def retrieve(self, request: Request, name: str) -> HttpResponse:
        query = from_query(DiscoveryQuery, request.query_params, name=name)
        newest, newest_of_service = ends = changes.ends(query.namespace, query.name)
        tag = etag.tag_of(newest_of_service or newest, query.model_dump_json())
        if newest_of_service and etag.matches(request.headers.get("If-None-Match"), tag):
            return HttpResponse(status=304, headers={INDEX_HEADER: newest, "ETag": tag})
        answer = catalogue.discover(query.namespace, query.name, wanted(query, ["UP"], LISTED), ends)
        return as_json(answer.text, answer.index, ETag=tag)


class InstanceViewSet(ViewSet):
    """One instance with its lease."""

    http_method_names = ("get", "head")
    allowed_to: ClassVar[dict[str, Action]] = {
        "retrieve": permissions.READ_INSTANCE,
        "retrieve_by_id": permissions.READ_INSTANCE,
    }

    problems: ClassVar[dict[str, tuple[int, ...]]] = {"retrieve": (404,), "retrieve_by_id": (404, 409)}

    @extend_schema(
        operation_id="instance",
        summary="Show an instance with its lease",
        parameters=parameters(InstanceQuery, "service_name", "instance_id"),
        responses={200: LeasedInstance},
    )
    def retrieve(self, request: Request, service_name: str, instance_id: str) -> Response:
        return self.found(
            request, from_query(InstanceQuery, request.query_params, service_name=service_name, instance_id=instance_id)
        )

    @extend_schema(
        operation_id="instance_by_id",
        summary="Show the instance of this id, whichever service has it",
        parameters=parameters(InstanceQuery, "instance_id"),
        responses={200: LeasedInstance},
    )
    def retrieve_by_id(self, request: Request, instance_id: str) -> Response:
        query = from_query(InstanceQuery, request.query_params, instance_id=instance_id)
        return self.found(request, query)

    def found(self, request: Request, query: InstanceQuery) -> Response:
        found = catalogue.find(query.namespace, query.service_name, query.instance_id)
        caller = asking(request)
        may_see_changes = caller.may("view_change") or caller.owns(found.owners)
        document = found.for_owner() if may_see_changes else found.for_all()
        return Response(document, headers={INDEX_HEADER: found.index})
