"""register, heartbeat and deregister for arrays: one hop to a thread, and nothing of Django's request in between, which
took a millisecond."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
from django.conf import settings

from service_registry import manager, permissions
from service_registry.api.errors import headers_of, is_failure, problem_of
from service_registry.api.parser import loads
from service_registry.api.reporting import Answered, outcome, refusals
from service_registry.asgi import request as door
from service_registry.asgi.flow_control import Answers
from service_registry.caller import Caller
from service_registry.database.thread_connection import prepare_thread_connection
from service_registry.http import bulk, responses
from service_registry.http.bulk import Verb
from service_registry.permissions import Action
from service_registry.schemas import Deregistration, Heartbeat, Registration

Item = TypeVar("Item", Heartbeat, Deregistration, Registration)
Done = TypeVar("Done")


@dataclass(frozen=True, slots=True)
class Worked:
    """What a thread has made of a request: the answer, and what is told of it."""

    body: bytes
    told: Answered
    more: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Array(Generic[Item, Done]):
    """A verb's door for an array."""

    action: Action
    model: type[Item]
    verb: Verb[Item, Done]
    shown: Callable[[Done], dict[str, Any]]
    threads: Executor
    under_way: Answers

    async def __call__(self, scope: HTTPScope, body: bytes, send: ASGISendCallable) -> bool:
        """Answer the request, or return False: then it is for Django."""
        request = door.arrived(scope, body)
        if request is None or not is_array(request) or self.caller_of(request) is None:
            return False
        worked = await asyncio.get_running_loop().run_in_executor(self.threads, self.work, request)
        if worked is None:
            return False
        # What is done is told, also where the client does not take the answer.
        door.report(request, worked.told)
        start = door.start_of(request, len(worked.body), worked.more.items(), worked.told.status)
        await self.under_way.pass_on(send, start, worked.body)
        return True

    def caller_of(self, request: door.Arrived) -> Caller | None:
        caller = door.known_caller(request)
        return None if caller is None or self.action.missing(caller.granted) else caller

    def work(self, request: door.Arrived) -> Worked | None:
        """On a thread. None when the token ran out while the request waited for it: Django says so."""
        caller = self.caller_of(request)
        if caller is None:
            return None
        items: int | None = None
        try:
            prepare_thread_connection()
            documents = loads(request.body)
            items = len(documents)
            outcomes = bulk.outcomes(self.model, documents, self.verb, caller)
            document = bulk.document(outcomes, self.shown)
            more = {"unchanged": bulk.unchanged(outcomes), "refusals": self.refusals(bulk.errors(document))}
            told = door.answered(request, self.action, 200, caller, bulk.counts(document), items=items, **more)
            return Worked(door.render(document), told)
        except Exception as error:  # noqa: BLE001 - each is a problem, as in DRF's hook
            return self.failed(request, caller, items, error)

    def failed(self, request: door.Arrived, caller: Caller, items: int | None, error: Exception) -> Worked:
        status, problem = problem_of(error, request.request_id)
        told = door.answered(
            request,
            self.action,
            status,
            caller,
            Counter({outcome(status, problem): items or 1}),
            items=items,
            refusals=self.refusals([problem] * (items or 1)),
            error=error if is_failure(status, error) else None,
        )
        return Worked(door.render(problem), told, headers_of(status, error))

    def refusals(self, errors: Sequence[Mapping[str, Any]]) -> Counter[str]:
        return refusals(errors) if self.action is permissions.HEARTBEAT else Counter()


def is_array(request: door.Arrived) -> bool:
    if len(request.body) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
        return False
    return door.is_plain_json(request) and request.body.lstrip().startswith(b"[")


class Arrays:
    """The doors of this process, by path. Their verbs run on `threads`, and `under_way` counts what they answer."""

    def __init__(self, threads: Executor, under_way: Answers) -> None:
        ends = threads, under_way
        doors: list[Array[Any, Any]] = [
            Array(permissions.REGISTER, Registration, manager.register, responses.of_registered_item, *ends),
            Array(permissions.HEARTBEAT, Heartbeat, manager.heartbeat, responses.of_beaten_item, *ends),
            Array(permissions.DEREGISTER, Deregistration, manager.deregister, responses.of_deregistered_item, *ends),
        ]
        self.doors = {f"/registry/{each.action.name}{slash}": each for each in doors for slash in ("", "/")}

    async def __call__(
        self, scope: HTTPScope, body: bytes, _receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> bool:
        """Answer the request when one of the doors can; return False when it is for Django."""
        array = self.doors.get(scope["path"]) if scope["method"] == "POST" else None
        return array is not None and await array(scope, body, send)
