"""register, heartbeat and deregister on the event loop: single objects and arrays."""

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from service_registry.asgi.auth import Authenticator
from service_registry.asgi.flow_control import ResponsesInFlight
from service_registry.asgi.request import Request
from service_registry.asgi.thread_queue import ThreadQueue
from service_registry.asgi.threads import with_connection
from service_registry.exceptions import RegistryError, UnsupportedMediaType
from service_registry.http.authentication import authenticate
from service_registry.http.operations import WriteOperation, one_response, run_array
from service_registry.http.responses import JSON, Response, render
from service_registry.http.strict_json import OBJECT_BYTES, parse_body, require_uncompressed
from service_registry.http.validation import validate_one, validate_query
from service_registry.manager.batch import Submission
from service_registry.schemas import EmptyQuery

Item = TypeVar("Item", bound=Any)
Done = TypeVar("Done")
Submit = Callable[[Submission[Item]], Awaitable[Done | RegistryError]]


class WriteHandler(Generic[Item, Done]):
    """Answers one operation.

    A single object joins the micro-batch of the operation, if it has one; an array is a batch already and runs by
    itself. What was received is done, also for a client that has left: one that stops may not wait for the response.

    Arguments:
        queue: for arrays, those of other operations too.
        submit: the micro-batch for single objects; None to queue them with the arrays.
    """

    def __init__(
        self,
        operation: WriteOperation[Item, Done],
        authenticator: Authenticator,
        responses: ResponsesInFlight,
        queue: ThreadQueue,
        submit: Submit[Item, Done] | None = None,
    ) -> None:
        self.operation = operation
        self.authenticator = authenticator
        self.responses = responses
        self.queue = queue
        self.submit = submit or self.run_one

    async def __call__(self, request: Request) -> Response:
        """Refuse in the order of the contract: token, permission, query, media type, body."""
        await self.authenticator.authenticate(request, self.operation.action)
        if request.scope["query_string"]:
            validate_query(EmptyQuery, request.query())
        if request.has_body:
            if request.media_type != JSON:
                raise UnsupportedMediaType
            require_uncompressed(request.header(b"content-encoding"))
        body = await request.read_body()
        if body.lstrip().startswith(b"[") or len(body) > OBJECT_BYTES:
            return await self.answer_array(request, body)
        identity = await self.authenticator.authenticate(request, self.operation.action)
        document = parse_body(body) if body else {}
        request.log.note_body(document)
        item = validate_one(self.operation.model, document)
        outcome = await self.submit(Submission(item, identity.caller))
        status, answer = one_response(self.operation, item, outcome, request.log)
        return Response(status, render(answer))

    async def run_one(self, submission: Submission[Item]) -> Done | RegistryError:
        run = with_connection(lambda: self.operation.run([submission.item], submission.caller))
        outcomes = await self.queue.run(submission.caller.actor, run)
        return outcomes[0]

    async def answer_array(self, request: Request, body: bytes) -> Response:
        """Parse and run an array on a thread: with 1 MiB both take milliseconds.

        The caller may have lost its access while the body arrived or while all threads were busy. A single object that
        is as large as only an array may be is refused there, too.
        """

        def run() -> bytes:
            caller = authenticate(request.headers.get(b"authorization")).caller
            self.operation.action.require(caller.granted)
            documents = parse_body(body)
            request.log.note_body(documents)
            return render(run_array(self.operation, documents, caller, request.log))

        answer = await self.queue.run(request.log.actor, with_connection(run))
        self.responses.free_capacity(len(answer))
        return Response(200, answer)
