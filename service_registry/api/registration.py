"""register, heartbeat and deregister over HTTP."""

from typing import ClassVar

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from service_registry import permissions
from service_registry.api.authentication import caller_of
from service_registry.api.openapi import problems
from service_registry.api.request_log import log_entry
from service_registry.http import operations
from service_registry.http.operations import Done, Item, WriteOperation, one_response, run_array
from service_registry.http.validation import validate_one, validate_query
from service_registry.permissions import Action
from service_registry.schemas import (
    Deregistrations,
    EmptyQuery,
    HeartbeatResponse,
    Heartbeats,
    LeasedInstance,
    RegisterResponse,
    Registrations,
    Results,
)


class RegistrationViewSet(ViewSet):
    """The three operations of an instance.

    Under ASGI `asgi/writes` answers these paths.
    """

    http_method_names = ("post",)
    allowed_to: ClassVar[dict[str, Action]] = {
        "register": permissions.REGISTER,
        "heartbeat": permissions.HEARTBEAT,
        "deregister": permissions.DEREGISTER,
    }

    @extend_schema(
        operation_id="register",
        summary="Register instances",
        description="States where an instance is. Idempotent: the body is a full statement, and a field that is left "
        "out has its default. The first registration of a service claims it for `owner`. An array has a result for "
        "each item.",
        request=Registrations,
        responses={200: RegisterResponse, 201: LeasedInstance, **problems(413, 415)},
    )
    def register(self, request: Request) -> Response:
        return respond(operations.REGISTER, request)

    @extend_schema(
        operation_id="heartbeat",
        summary="Renew leases",
        description="Renews the lease of an instance. An expired instance that is still kept is listed again.",
        request=Heartbeats,
        responses={200: HeartbeatResponse, **problems(404, 409, 413, 415)},
    )
    def heartbeat(self, request: Request) -> Response:
        return respond(operations.HEARTBEAT, request)

    @extend_schema(
        operation_id="deregister",
        summary="Deregister instances",
        description="Removes an instance from the list. Safe to repeat.",
        request=Deregistrations,
        responses={204: None, 200: Results, **problems(404, 409, 413, 415)},
    )
    def deregister(self, request: Request) -> Response:
        return respond(operations.DEREGISTER, request)


def respond(operation: WriteOperation[Item, Done], request: Request) -> Response:
    """Run an operation over the object or the array in the body."""
    validate_query(EmptyQuery, request.query_params)
    caller, entry = caller_of(request), log_entry(request)
    if isinstance(request.data, list):
        return Response(run_array(operation, request.data, caller, entry))
    item = validate_one(operation.model, request.data)
    (outcome,) = operation.run([item], caller)
    status, document = one_response(operation, item, outcome, entry)
    return Response(document, status)
