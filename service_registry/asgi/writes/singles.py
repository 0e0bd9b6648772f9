"""register and heartbeat in ones: the verbs behind DRF, for many callers in one transaction."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope

from service_registry import manager, permissions
from service_registry.api.errors import headers_of, is_failure, problem_of
from service_registry.api.parser import OBJECT_BYTES, loads
from service_registry.api.reporting import Answered, outcome, refusals
from service_registry.asgi import request as door
from service_registry.asgi.writes.micro_batch import Gathering
from service_registry.exceptions import InvalidInput, RegistryError
from service_registry.http import responses
from service_registry.http.validation import validate_one
from service_registry.manager.batch import Submission
from service_registry.permissions import Action
from service_registry.schemas import Heartbeat, Registration

Item = TypeVar("Item", Heartbeat, Registration)
Done = TypeVar("Done", manager.Renewed, manager.Registered)


@dataclass(frozen=True, slots=True)
class Single(Generic[Item, Done]):
    """A verb's door for one object. `shown` makes the answer, its status and its document."""

    action: Action
    model: type[Item]
    gathering: Gathering[Item, Done]
    shown: Callable[[Item, Done], responses.Answer]

    async def __call__(self, scope: HTTPScope, body: bytes, send: ASGISendCallable) -> bool:
        """Answer the request, or return False: then it is for Django."""
        request = door.arrived(scope, body)
        caller = door.known_caller(request) if request else None
        if request is None or caller is None or self.action.missing(caller.granted):
            return False
        item = understood(self.model, request)
        if item is None:
            return False
        await self.answer(send, request, Submission(item, caller))
        return True

    async def answer(self, send: ASGISendCallable, request: door.Arrived, asked: Submission[Item]) -> None:
        told: dict[str, Any] = {}
        more: dict[str, str] = {}
        try:
            done = await self.gathering.outcome(asked)
            if isinstance(done, RegistryError):
                raise done
            status, document = self.shown(asked.item, done)
            told["unchanged"] = int(isinstance(done, manager.Renewed) and not done.changed)
        except Exception as error:  # noqa: BLE001 - each is a problem, as in DRF's hook
            status, document = problem_of(error, request.request_id)
            more = headers_of(status, error)
            told["error"] = error if is_failure(status, error) else None
            told["refusals"] = self.refusals(document)
        # What is done is told, also where the client does not take the answer.
        door.report(request, self.answered(request, asked, (status, document), told))
        await door.answer(send, request, status, document, more.items())

    def refusals(self, problem: dict[str, Any]) -> dict[str, int]:
        return refusals([problem]) if self.action is permissions.HEARTBEAT else {}

    def answered(
        self, request: door.Arrived, asked: Submission[Item], answer: responses.Answer, told: dict[str, Any]
    ) -> Answered:
        status, document = answer
        return door.answered(
            request,
            self.action,
            status,
            asked.caller,
            Counter({outcome(status, document): 1}),
            # As Django's door says it: by what the body holds.
            namespace=asked.namespace if "namespace" in asked.item.model_fields_set else None,
            service_name=asked.service_name,
            instance_id=asked.instance_id,
            **told,
        )


def understood(model: type[Item], request: door.Arrived) -> Item | None:
    """The one object in the body, or None where Django has to say what is wrong with it, or it is an array."""
    if (
        not door.is_plain_json(request)
        or len(request.body) > OBJECT_BYTES
        or not request.body.lstrip().startswith(b"{")
    ):
        return None
    try:
        return validate_one(model, loads(request.body))
    except InvalidInput:
        return None


class Singles:
    """The doors of this process, by path. Their verbs run on `threads`, at most one batch of each at a time."""

    def __init__(self, threads: Executor) -> None:
        beats = Gathering(manager.heartbeat_for_callers, threads)
        registrations = Gathering(manager.register_for_callers, threads)
        beat = Single(permissions.HEARTBEAT, Heartbeat, beats, responses.of_heartbeat)
        register = Single(permissions.REGISTER, Registration, registrations, responses.of_registration)
        self.doors: dict[str, Single[Any, Any]] = {
            f"/registry/{single.action.name}{slash}": single for single in (beat, register) for slash in ("", "/")
        }

    async def __call__(
        self, scope: HTTPScope, body: bytes, _receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> bool:
        """Answer the request when one of the doors can; return False when it is for Django."""
        single = self.doors.get(scope["path"]) if scope["method"] == "POST" else None
        return single is not None and await single(scope, body, send)
