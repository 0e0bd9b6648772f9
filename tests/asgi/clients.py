"""The client's two ends of a request, for answers that are looked at while they are sent."""

import asyncio
from collections.abc import Callable

from asgiref.typing import ASGIReceiveEvent, ASGISendEvent, HTTPScope

GET: HTTPScope = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/",
    "raw_path": b"/",
    "query_string": b"",
    "root_path": "",
    "headers": [],
    "client": None,
    "server": None,
    "state": {},
    "extensions": None,
}


async def nowhere(_message: ASGISendEvent) -> None:
    """To a client of whom nothing is known."""


async def silence() -> ASGIReceiveEvent:
    """Of a client that stays."""
    await asyncio.Event().wait()
    raise AssertionError("it never ends")


class Client:
    """Takes the end of its answer when it is let.

    Arguments:
        body: of its request.
        at_the_end: is called when the end is sent.
    """

    def __init__(self, body: bytes = b"", at_the_end: Callable[[], object] = lambda: None) -> None:
        self.body = body
        self.at_the_end = at_the_end
        self.is_sent_the_end = asyncio.Event()
        self.takes = asyncio.Event()
        self.taken = b""

    async def receive(self) -> ASGIReceiveEvent:
        body, self.body = self.body, b""
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] != "http.response.body":
            return
        if not message["more_body"]:
            self.at_the_end()
            self.is_sent_the_end.set()
            await self.takes.wait()
        self.taken += message["body"]
