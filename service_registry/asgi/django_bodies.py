"""Read request bodies for Django: a call's once its token is accepted, all others within a total."""

import io
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from asgiref.typing import ASGIReceiveCallable, HTTPScope
from django.conf import settings
from django.db import Error

from service_registry.asgi.auth import Authenticator
from service_registry.asgi.request import BODY_SECONDS, announced_length, announces_body, join_repeated, read_body
from service_registry.exceptions import BodyTooLarge, RegistryError, TooBusy
from service_registry.identity.exceptions import KeysUnavailable, TokenInvalid

# Bodies for pages, whose clients need no token: of one request, and of all that are in memory.
PAGE_BODY_BYTES = 64 * 1024
PAGE_BODIES_BYTES = 16 * 1024 * 1024
API_PREFIX = "/registry/"


class UnreadBody(io.BytesIO):
    """The body of a call that its view refuses, by the token or by the announced length."""

    def read(self, _size: int | None = -1) -> bytes:
        """Raise TooBusy: the view accepts the token, whose keys or rules were out of reach a moment before."""
        raise TooBusy


class DjangoBodies:
    """Reads the bodies of Django's requests. Belongs to the event loop.

    Arguments:
        body_seconds: how long a client may take to send a body.

    Attributes:
        page_bytes: memory reserved for bodies of pages.
    """

    def __init__(self, authenticator: Authenticator, body_seconds: float = BODY_SECONDS) -> None:
        self.authenticator = authenticator
        self.body_seconds = body_seconds
        self.page_bytes = 0

    @asynccontextmanager
    async def read(self, scope: HTTPScope, receive: ASGIReceiveCallable) -> AsyncIterator[tuple[io.BytesIO, int]]:
        """Give the body of a request and its length; for a page, its memory is reserved while the block runs.

        Raises:
            BodyTooLarge: the body of a page is too large.
            TooBusy: the bodies of pages leave no memory for this one.
            RequestTimeout, ClientDisconnected: the body did not arrive.
        """
        if not announces_body(scope):
            yield io.BytesIO(), 0
        elif is_call(scope):
            yield await self.read_for_call(scope, receive)
        else:
            limit = min(PAGE_BODY_BYTES, settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
            if announced_length(scope) > limit:
                raise BodyTooLarge
            with self.reserve(announced_length(scope) or limit):
                body = await read_body(scope, receive, self.body_seconds, limit)
                yield io.BytesIO(body), len(body)

    async def read_for_call(self, scope: HTTPScope, receive: ASGIReceiveCallable) -> tuple[io.BytesIO, int]:
        """Return the body of a call and its length; unread where its view refuses it anyway."""
        try:
            await self.authenticator.identify(join_repeated(scope).get(b"authorization"))
        except (RegistryError, TokenInvalid, KeysUnavailable, Error):
            return UnreadBody(), announced_length(scope) or 1
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        try:
            body = await read_body(scope, receive, self.body_seconds, limit)
        except BodyTooLarge:
            return UnreadBody(), max(announced_length(scope), limit + 1)
        return io.BytesIO(body), len(body)

    @contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Reserve memory for the body of a page while the block runs. Raises TooBusy."""
        if self.page_bytes + size > PAGE_BODIES_BYTES:
            raise TooBusy
        self.page_bytes += size
        try:
            yield
        finally:
            self.page_bytes -= size


def is_call(scope: HTTPScope) -> bool:
    """Return whether a request is one of the API, and needs a token for everything that has a body."""
    return scope["path"].removeprefix(scope["root_path"]).startswith(API_PREFIX)
