"""What those who let a client wait have in common."""

import asyncio
import random
import time
from typing import Any

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable

from service_registry.replica.hub import Hub
from service_registry.replica.subscribers import EndReason, Subscriber

FLUSH_POLL_SECONDS = 0.05
STALE_HEADER = "X-Registry-Stale"

now = time.monotonic


def with_jitter(seconds: float) -> float:
    """Up to a sixteenth longer, so that callers who began to wait together do not come back together."""
    return seconds + random.uniform(0, seconds / 16)  # noqa: S311 (jitter)


async def watch_client(receive: ASGIReceiveCallable, waiter: Subscriber) -> None:
    """End the wait when the client closes its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
    waiter.end(EndReason.DISCONNECTED)


def abort(send: ASGISendCallable) -> None:
    """Close the connection without sending what lies in its buffer: who takes nothing would hold it open.

    ASGI has no word for that; uvicorn's `send` belongs to an object that knows the transport. With another server the
    answer stays unfinished, and the server closes the connection.
    """
    transport: Any = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is not None:
        transport.abort()


def unsent_bytes(send: ASGISendCallable) -> int:
    """How much was sent that the client's side has not taken. With a server other than uvicorn nobody knows."""
    transport: Any = getattr(getattr(send, "__self__", None), "transport", None)
    return 0 if transport is None else int(transport.get_write_buffer_size())


async def flushed(send: ASGISendCallable) -> None:
    """Until the client's side has taken the whole answer, or the next one has begun behind it."""
    while unsent_bytes(send) and not is_followed(send):
        await asyncio.sleep(FLUSH_POLL_SECONDS)


def is_followed(send: ASGISendCallable) -> bool:
    """Whether the answer is complete, and the web server has gone on to another request of its connection, whose answer
    is not this one's to cut off. With a server other than uvicorn nobody knows."""
    cycle: Any = getattr(send, "__self__", None)
    return getattr(cycle, "response_complete", False) and cycle.transport.get_protocol().cycle is not cycle


def stale_header(hub: Hub) -> dict[str, str]:
    seconds = hub.stale_seconds
    return {} if seconds is None else {STALE_HEADER: str(seconds)}
