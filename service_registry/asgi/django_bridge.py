"""Run Django behind the event loop: a whole body, one thread of a fixed pool.

A slow client holds no thread while it sends or reads, and the database never sees more connections than the pool has
threads. Django's own ASGI handler creates a thread for each request: with persistent connections it held
76 connections after 3 s of load.
"""

import io
import time
from functools import partial

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
from django.core.handlers.asgi import ASGIRequest, get_script_prefix
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_started
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.urls import set_script_prefix

from service_registry.asgi import transport
from service_registry.asgi.auth import actor_at_once
from service_registry.asgi.django_bodies import DjangoBodies, UnreadBody
from service_registry.asgi.flow_control import ResponsesInFlight
from service_registry.asgi.headers import Head, write_lines
from service_registry.asgi.request import ClientDisconnected
from service_registry.asgi.thread_queue import ThreadQueue
from service_registry.exceptions import BodyTooLarge, RateLimited, RequestTimeout, TooBusy
from service_registry.http.content_type import readable_content_type
from service_registry.http.problems import CONTENT_TYPE, headers_for_error, problem_for_error
from service_registry.http.request_log import REQUEST_ID_HEADER, RequestLogEntry, choose_request_id, record
from service_registry.http.responses import render

# A password takes a core for 300 ms to hash. Logins that wait for it are few, and leave the other threads to pages.
LOGINS_AT_ONCE, MAX_LOGINS = 1, 20
LOGIN_PATH = "/admin/login/"


class DjangoBridge:
    """An ASGI application that answers requests with Django.

    Arguments:
        queue: of threads that run Django. Heartbeats, registrations and the pulse have others: a login hashes its
            password for 100 ms and more, or waits for the OIDC provider.
        responses: the responses in flight.
        bodies: reads the bodies of requests.

    Attributes:
        logins: the queue of logins by password, for the same threads.
    """

    def __init__(self, queue: ThreadQueue, responses: ResponsesInFlight, bodies: DjangoBodies) -> None:
        self.handler = WSGIHandler()
        self.queue = queue
        self.logins = ThreadQueue("logins", queue.threads, LOGINS_AT_ONCE, MAX_LOGINS)
        self.responses = responses
        self.bodies = bodies

    async def __call__(self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        started_at = time.perf_counter()
        actor = actor_at_once(scope)
        if actor:
            transport.note_accepted_token(send)
        try:
            async with self.bodies.read(scope, receive) as (stream, length):
                head, answer = await self.run(receive, actor, scope, stream, length)
            self.require_capacity(scope, len(answer))
        except ClientDisconnected:
            return
        except (BodyTooLarge, RequestTimeout, TooBusy, RateLimited) as error:
            head, answer = refuse(scope, error, time.perf_counter() - started_at)
        await self.responses.deliver(send, head, answer)

    async def run(
        self, receive: ASGIReceiveCallable, actor: str | None, scope: HTTPScope, stream: io.BytesIO, length: int
    ) -> tuple[Head, bytes]:
        """Run Django on a thread. Work whose client leaves before it begins is dropped.

        A body that is not read is neither asked for nor read past: its view refuses the request at once.

        Raises RateLimited, TooBusy, ClientDisconnected.
        """
        respond = partial(self.respond, scope, stream, length)
        if isinstance(stream, UnreadBody):
            return await self.queue.run(actor, respond)
        if is_password_login(scope):
            return await self.logins.run_while_connected(receive, None, respond)
        return await self.queue.run_while_connected(receive, actor, respond)

    def require_capacity(self, scope: HTTPScope, size: int) -> None:
        """Raise TooBusy when slow readers leave no memory for a large response.

        The response to a write is never refused: the write is done.
        """
        if not self.responses.free_capacity(size) and scope["method"] == "GET":
            raise TooBusy

    def respond(self, scope: HTTPScope, stream: io.BytesIO, length: int) -> tuple[Head, bytes]:
        """Run Django on a thread and return the whole response, static files included.

        The stream is closed before it returns: the traceback of an exception that Django has handled may keep this
        frame, and the request, until the next collection of cycles.
        """
        set_script_prefix(get_script_prefix(scope))
        request_started.send(sender=type(self), scope=scope)
        with stream:
            request = ASGIRequest(with_readable_content_type(with_joined_cookies(scope)), stream)
            request.META["CONTENT_LENGTH"] = str(length)
            response = self.handler.get_response(request)
        try:
            content = take_content(response)
            if response.status_code not in {204, 304} and not response.has_header("Content-Length"):
                response["Content-Length"] = str(len(content))
            return response_head(response), content
        finally:
            response.close()  # sends request_finished


def is_password_login(scope: HTTPScope) -> bool:
    """Return whether a request may have a password hashed."""
    return scope["method"] == "POST" and scope["path"].removeprefix(scope["root_path"]) == LOGIN_PATH


def with_joined_cookies(scope: HTTPScope) -> HTTPScope:
    """Return the scope with one Cookie header (RFC 9113, section 8.2.3).

    Django would join them with commas.
    """
    cookies = [value for name, value in scope["headers"] if name == b"cookie"]
    if len(cookies) < 2:
        return scope
    others = [(name, value) for name, value in scope["headers"] if name != b"cookie"]
    return {**scope, "headers": [*others, (b"cookie", b"; ".join(cookies))]}


def with_readable_content_type(scope: HTTPScope) -> HTTPScope:
    """Return the scope with Content-Type headers that Django can parse."""
    headers = [
        (name, readable_content_type(value.decode("latin-1")).encode("latin-1") if name == b"content-type" else value)
        for name, value in scope["headers"]
    ]
    return {**scope, "headers": headers}


def take_content(response: HttpResponseBase) -> bytes:
    """Return the body of a response, and leave the response without it.

    DRF's views, requests and responses refer to each other, so that a large body would stay in memory until the next
    collection of cycles: 150 large pages held 133 MB.
    """
    content = b"".join(response)
    if isinstance(response, HttpResponse):
        response.content = b""
    return content


def response_head(response: HttpResponseBase) -> Head:
    cookies = (("set-cookie", cookie.output(header="").strip()) for cookie in response.cookies.values())
    return Head(response.status_code, write_lines([*response.items(), *cookies]))


def refuse(
    scope: HTTPScope, error: BodyTooLarge | RequestTimeout | TooBusy | RateLimited, seconds: float
) -> tuple[Head, bytes]:
    """Log a request that Django does not see, and return its problem.

    The connection is closed behind it.
    """
    sent = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    request_id = choose_request_id(sent.decode("latin-1"))
    status, document = problem_for_error(error, request_id)
    entry = RequestLogEntry(operation="unknown", route=None, method=scope["method"], request_id=request_id)
    entry.note_problem(status, document)
    record(entry, seconds)
    headers = {"Content-Type": CONTENT_TYPE, "Connection": "close", REQUEST_ID_HEADER: request_id}
    return Head(status, write_lines((headers | headers_for_error(status, error)).items())), render(document)
