"""The verbs over HTTP: an object is a batch of one, an array a batch of its items."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, TypeVar, cast

from drf_spectacular.utils import extend_schema
from pydantic import BaseModel
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from service_registry import manager, permissions
from service_registry.api import operation
from service_registry.api.authentication import asking
from service_registry.api.parting import Parted
from service_registry.exceptions import RegistryError
from service_registry.http import bulk, responses
from service_registry.http.bulk import Verb
from service_registry.http.validation import validate_one, validate_query
from service_registry.permissions import Action
from service_registry.schemas import (
    Deregistration,
    Deregistrations,
    EmptyQuery,
    Heartbeat,
    HeartbeatResponse,
    Heartbeats,
    LeasedInstance,
    RegisterResponse,
    Registration,
    Registrations,
    Results,
)

Model = TypeVar("Model", bound=BaseModel)
Outcome = TypeVar("Outcome")


class RegistrationViewSet(Parted, ViewSet):
    """register, heartbeat and deregister."""

    http_method_names = ("post",)
    allowed_to: ClassVar[dict[str, Action]] = {
        "register": permissions.REGISTER,
        "heartbeat": permissions.HEARTBEAT,
        "deregister": permissions.DEREGISTER,
    }

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        validate_query(EmptyQuery, request.query_params)

    # What each may answer with besides the problems that any operation may.
    problems: ClassVar[dict[str, tuple[int, ...]]] = {
        "register": (413, 415),
        "heartbeat": (404, 409, 413, 415),
        "deregister": (404, 409, 413, 415),
    }

    @extend_schema(
        operation_id="register",
        summary="Register instances",
        description="Says where an instance is. Idempotent: a full statement, in which a field left out has its "
        "default. The first registration of a service claims it for `owner`. An array is answered item by item.",
        request=Registrations,
        responses={200: RegisterResponse, 201: LeasedInstance},
    )
    def register(self, request: Request) -> Response:
        if isinstance(request.data, list):
            return in_array(Registration, request, manager.register, responses.of_registered_item)
        item = validate_one(Registration, request.data)
        status, document = responses.of_registration(item, unwrapped(manager.register([item], asking(request))))
        return Response(document, status)

    @extend_schema(
        operation_id="heartbeat",
        summary="Renew leases",
        description="Says that an instance is still there; one that had expired comes back.",
        request=Heartbeats,
        responses={200: HeartbeatResponse},
    )
    def heartbeat(self, request: Request) -> Response:
        if isinstance(request.data, list):
            return in_array(Heartbeat, request, manager.heartbeat, responses.of_beaten_item)
        beat = validate_one(Heartbeat, request.data)
        outcomes = manager.heartbeat([beat], asking(request))
        note_unchanged(request, outcomes)
        _status, document = responses.of_heartbeat(beat, unwrapped(outcomes))
        return Response(document)

    @extend_schema(
        operation_id="deregister",
        summary="Deregister instances",
        description="Says that an instance is leaving. Safe to repeat.",
        request=Deregistrations,
        responses={204: None, 200: Results},
    )
    def deregister(self, request: Request) -> Response:
        if isinstance(request.data, list):
            return in_array(Deregistration, request, manager.deregister, responses.of_deregistered_item)
        unwrapped(manager.deregister([validate_one(Deregistration, request.data)], asking(request)))
        return Response(status=204)


def unwrapped(outcomes: list[Outcome | RegistryError]) -> Outcome:
    """The result of a batch of one. Raises its RegistryError."""
    (outcome,) = outcomes
    if isinstance(outcome, RegistryError):
        raise outcome
    return outcome


def in_array(
    model: type[Model], request: Request, verb: Verb[Model, Outcome], shown: Callable[[Outcome], dict[str, Any]]
) -> Response:
    done = bulk.outcomes(model, cast(list[Any], request.data), verb, asking(request))
    note_unchanged(request, done)
    return Response(bulk.document(done, shown))


def note_unchanged(request: Request, outcomes: Iterable[object]) -> None:
    """Leave on the request how many beats changed nothing: those are counted, and not logged."""
    operation.of(request).unchanged = bulk.unchanged(outcomes)
