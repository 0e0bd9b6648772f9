"""register, heartbeat and deregister for arrays: one hop to a thread, and nothing of Django's request in between, which
for an array of 500 beats was a fifth of the work."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
from django.conf import settings
from django.db import close_old_connections

from service_registry import manager, permissions
from service_registry.api import answers, arrays
from service_registry.api.arrays import Verb
from service_registry.api.errors import headers_of, is_failure, problem_of
from service_registry.api.parser import loads
from service_registry.api.reporting import Answered, outcome, refusals
from service_registry.caller import Caller
from service_registry.exceptions import InvalidInput
from service_registry.live import door
from service_registry.permissions import Action
from service_registry.schemas import ARRAY_LIMIT, Beat, Deregistration, Registration

Item = TypeVar("Item", Beat, Deregistration, Registration)
Done = TypeVar("Done")


@dataclass(slots=True)
class Worked:
    """What a thread has made of a request: the answer, and what is told of it."""

    status: int
    body: bytes
    told: dict[str, Any]
    more: dict[str, str]


@dataclass(frozen=True, slots=True)
class Array(Generic[Item, Done]):
    """A verb's door for an array."""

    action: Action
    model: type[Item]
    verb: Verb[Item, Done]
    shown: Callable[[Done], dict[str, Any]]
    threads: Executor

    async def __call__(self, scope: HTTPScope, body: bytes, send: ASGISendCallable) -> bool:
        """Answer the request, or return False: then it is for Django."""
        request = door.arrived(scope, body)
        caller = door.known_caller(request) if request and is_array(request) else None
        if request is None or caller is None or self.action.missing(caller.granted):
            return False
        worked = await asyncio.get_running_loop().run_in_executor(self.threads, self.work, request, caller)
        if worked is None:
            return False
        await door.answer_text(send, request, worked.body, worked.more.items(), worked.status)
        door.report(request, self.answered(request, caller, worked))
        return True

    def work(self, request: door.Arrived, caller: Caller) -> Worked | None:
        """On a thread. None where Django has to say what is wrong with the body."""
        try:
            documents = loads(request.body)
        except InvalidInput:
            return None
        if not 1 <= len(documents) <= ARRAY_LIMIT:
            return None
        told: dict[str, Any] = {"items": len(documents)}
        close_old_connections()  # as at the start of a request: one that broke is made anew
        try:
            outcomes = arrays.outcomes(self.model, documents, self.verb, caller)
        except Exception as error:  # noqa: BLE001 - each is a problem, as in DRF's hook
            return self.failed(request, error, told)
        document = arrays.document(outcomes, self.shown)
        told |= {"outcomes": arrays.counts(document), "unchanged": arrays.unchanged(outcomes)}
        told |= self.refusals(arrays.errors(document))
        return Worked(200, door.render(document), told, {})

    def failed(self, request: door.Arrived, error: Exception, told: dict[str, Any]) -> Worked:
        status, problem = problem_of(error, request.request_id)
        told |= {"outcomes": Counter({outcome(status, problem): told["items"]})}
        told |= self.refusals([problem] * told["items"])
        told["error"] = error if is_failure(status, error) else None
        return Worked(status, door.render(problem), told, headers_of(status, error))

    def refusals(self, errors: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {"refusals": refusals(errors)} if self.action is permissions.HEARTBEAT else {}

    def answered(self, request: door.Arrived, caller: Caller, worked: Worked) -> Answered:
        return Answered(
            method="POST",
            verb=self.action.name,
            route=f"/registry/{self.action.name}",
            status=worked.status,
            request_id=request.request_id,
            actor=caller.actor,
            namespace=None,
            service_name=None,
            instance_id=None,
            **worked.told,
        )


def is_array(request: door.Arrived) -> bool:
    if len(request.body) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
        return False
    return door.is_plain_json(request) and request.body.lstrip().startswith(b"[")


class Arrays:
    """The doors of this process, by path. Their verbs run on `threads`."""

    def __init__(self, threads: Executor) -> None:
        doors: list[Array[Any, Any]] = [
            Array(permissions.REGISTER, Registration, manager.register, answers.of_registered_item, threads),
            Array(permissions.HEARTBEAT, Beat, manager.heartbeat, answers.of_beaten_item, threads),
            Array(permissions.DEREGISTER, Deregistration, manager.deregister, answers.of_deregistered_item, threads),
        ]
        self.doors = {f"/registry/{each.action.name}{slash}": each for each in doors for slash in ("", "/")}

    async def __call__(
        self, scope: HTTPScope, body: bytes, _receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> bool:
        """Answer the request when one of the doors can; return False when it is for Django."""
        array = self.doors.get(scope["path"]) if scope["method"] == "POST" else None
        return array is not None and await array(scope, body, send)
