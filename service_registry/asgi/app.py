"""The ASGI application: one routing table.

Every request that is not in it is Django's. A request in the table is parsed, authenticated and validated once, by its
handler. Refusals are exceptions, which become problem documents here.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope

from service_registry import manager
from service_registry.asgi.auth import Authenticator
from service_registry.asgi.django_bodies import DjangoBodies
from service_registry.asgi.django_bridge import DjangoBridge
from service_registry.asgi.headers import response_head, stale_headers
from service_registry.asgi.process import WebProcess
from service_registry.asgi.reads.blocking import BlockingReads
from service_registry.asgi.reads.discovery import Discovery
from service_registry.asgi.reads.listing import Listing
from service_registry.asgi.reads.response_cache import ResponseCache
from service_registry.asgi.request import ClientDisconnected, Request
from service_registry.asgi.watch.handler import Watch
from service_registry.asgi.writes.handler import WriteHandler
from service_registry.asgi.writes.micro_batch import MicroBatcher
from service_registry.exceptions import RequestTimeout
from service_registry.http.operations import DEREGISTER, HEARTBEAT, REGISTER
from service_registry.http.paths import decode_segment, routing_path
from service_registry.http.problems import CONTENT_TYPE, headers_for_error, is_failure, problem_for_error
from service_registry.http.request_log import record
from service_registry.http.responses import Response, render
from service_registry.schemas import Heartbeat, Registration

Handler = Callable[[Request], Awaitable[Response | None]]


@dataclass(frozen=True, slots=True)
class Route:
    """The name of an operation in logs and metrics, and its handler.

    `any_host` is True where the handler answers for any Host.
    """

    operation: str
    handler: Handler
    any_host: bool = False


class Application:
    """The registry as an ASGI application."""

    def __init__(self) -> None:
        self.process = process = WebProcess()
        authenticator = Authenticator(process.read_threads)
        self.django = DjangoBridge(process.django_queue, process.responses, DjangoBodies(authenticator))
        blocking = BlockingReads(process.hub, authenticator, process.read_threads, process.subscriber_places)
        threads = process.write_threads
        registrations = MicroBatcher[Registration, manager.Registered](
            manager.register_for_callers, manager.merge_registrations, threads, "registrations"
        )
        heartbeats = MicroBatcher[Heartbeat, manager.Renewed](
            manager.heartbeat_for_callers, manager.merge_heartbeats, threads, "heartbeats"
        )
        write = authenticator, process.responses, process.array_queue
        read = authenticator, process.responses, blocking, ResponseCache()
        watch = Watch(process.hub, authenticator, process.responses, process.read_threads, process.subscriber_places)
        self.routes = {
            ("GET", "/livez"): Route("livez", livez, any_host=True),
            ("GET", "/readyz"): Route("readyz", self.readyz, any_host=True),
            ("HEAD", "/livez"): Route("livez", livez, any_host=True),
            ("POST", "/registry/register"): Route("register", WriteHandler(REGISTER, *write, registrations.submit)),
            ("POST", "/registry/heartbeat"): Route("heartbeat", WriteHandler(HEARTBEAT, *write, heartbeats.submit)),
            ("POST", "/registry/deregister"): Route("deregister", WriteHandler(DEREGISTER, *write)),
            ("GET", "/registry/services"): Route("list", Listing(*read)),
            ("GET", "/registry/services/{name}"): Route("discover", Discovery(*read)),
            ("GET", "/registry/watch"): Route("watch", watch),
        }

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "lifespan":
            await self.process.run_lifespan(receive, send)
        elif scope["type"] == "http":
            await self.dispatch(scope, receive, send)
        else:
            await refuse_websocket(receive, send)

    async def dispatch(self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Find the route by method and path, with or without a trailing slash.

        A last segment may be a parameter.
        """
        path, parameter = path_of(scope).removesuffix("/"), ""
        route = self.routes.get((scope["method"], path))
        if route is None:
            parent, _, parameter = path.rpartition("/")
            path = f"{parent}/{{name}}"
            route = self.routes.get((scope["method"], path)) if parameter else None
        if route is None:
            await self.django(scope, receive, send)
        else:
            parameter = decode_segment(parameter)
            await self.answer(
                route, Request(scope, receive, send, operation=route.operation, route=path, path_parameter=parameter)
            )

    async def answer(self, route: Route, request: Request) -> None:
        """Run a handler, send its response or problem, and log the request."""
        try:
            if not route.any_host:
                request.require_known_host()
            response = await route.handler(request)
        except ClientDisconnected:
            return
        except Exception as error:  # noqa: BLE001 - each becomes a problem, as in DRF's exception handler
            response = self.problem(error, request)
        if response is not None:
            request.log.note_response(response.status, "created" if response.status == 201 else "ok")
        # A write is done, whether or not its client reads the response. A read is what was delivered.
        if request.scope["method"] == "POST":
            self.record(request)
        if response is not None and not await self.deliver(request, response):
            request.log.note_slow_client()
        if request.scope["method"] != "POST":
            self.record(request)

    async def readyz(self, _request: Request) -> Response:
        """Answer whether this process may serve."""
        status, checks = await self.process.probe.read()
        return Response(status, render(checks), {} if status == 200 else {"Retry-After": "1"})

    def problem(self, error: Exception, request: Request) -> Response:
        """Return the problem document of an error, and keep it for the log."""
        status, document = problem_for_error(error, request.log.request_id)
        request.log.note_problem(status, document)
        request.log.error = error if is_failure(status, error) else None
        headers = headers_for_error(status, error)
        if request.scope["method"] == "GET":
            headers |= stale_headers(self.process.hub)
        if isinstance(error, RequestTimeout):
            headers["Connection"] = "close"
        return Response(status, render(document), headers, CONTENT_TYPE)

    def record(self, request: Request) -> None:
        record(request.log, time.perf_counter() - request.started_at)

    async def deliver(self, request: Request, response: Response) -> bool:
        """Send a response; return False when its client read too slowly and was cut off."""
        return await self.process.responses.deliver(request.send, response_head(request, response), response.body)


def path_of(scope: HTTPScope) -> str:
    """Return the path by which a request is routed."""
    raw_path = scope.get("raw_path")
    # Nearly all paths have nothing encoded.
    if "%" not in scope["path"] and raw_path is not None and b"%" not in raw_path:
        return scope["path"]
    return routing_path(scope["path"], raw_path)


async def livez(_request: Request) -> Response:
    """Answer while the event loop runs.

    A restart would not help a process whose threads wait for the database.
    """
    return Response(200, b'{"status": "ok"}')


async def refuse_websocket(receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Refuse the handshake, which the server answers with 403.

    Without a refusal it would answer 500, where it has a library for WebSockets.
    """
    await receive()
    await send({"type": "websocket.close", "code": 1000, "reason": None})
