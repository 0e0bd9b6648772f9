"""The connection beneath a response: what ASGI does not offer.

uvicorn keeps it in private attributes. This is the only module that knows them. `tests/asgi/test_transport.py` fails
when uvicorn changes them. With another server nothing is known of the connection: responses are sent, but a client that
stalls is not disconnected at once.
"""

import asyncio
from typing import Any

from asgiref.typing import ASGISendCallable

FLUSH_POLL_SECONDS = 0.05


def abort(send: ASGISendCallable) -> None:
    """Close the connection and discard what lies in its buffer.

    A client that reads nothing would hold it.
    """
    transport = transport_of(send)
    if transport is not None:
        transport.abort()


def unsent_bytes(send: ASGISendCallable) -> int:
    """Return how many bytes of the response are still in the server's buffer."""
    transport = transport_of(send)
    return 0 if transport is None else int(transport.get_write_buffer_size())


async def flush(send: ASGISendCallable) -> None:
    """Wait until the client has received the whole response.

    Return also when the next response has begun behind it.
    """
    while unsent_bytes(send) and not is_superseded(send):
        await asyncio.sleep(FLUSH_POLL_SECONDS)


def is_superseded(send: ASGISendCallable) -> bool:
    """Return whether a complete response was followed by another request.

    Both use one connection. Closing the connection then would cut off the other request's response.
    """
    cycle: Any = getattr(send, "__self__", None)
    return getattr(cycle, "response_complete", False) and cycle.transport.get_protocol().cycle is not cycle


def transport_of(send: ASGISendCallable) -> Any:
    """Return uvicorn's transport: its `send` is a method of the object that has it."""
    return getattr(getattr(send, "__self__", None), "transport", None)
