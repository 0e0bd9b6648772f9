"""The connection beneath a response: what ASGI does not offer.

`asgi/server/` has it. With another server nothing is known of the connection: responses are sent, but a client that
stalls is not disconnected at once.
"""

import asyncio

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable
from uvicorn import Config

from service_registry.asgi.server.connection import Connection
from service_registry.asgi.server.exchange import Exchange

FLUSH_POLL_SECONDS = 0.05


def abort(send: ASGISendCallable) -> None:
    """Close the connection and discard what lies in its buffer.

    A client that reads nothing would hold it.
    """
    if (exchange := exchange_of(send)) is not None:
        exchange.transport.abort()


def respond(send: ASGISendCallable, status: int, lines: bytes, body: bytes) -> bool:
    """Write a whole response in one step; return False where that is not possible now.

    Args:
        lines: the headers, a length included.
    """
    exchange = exchange_of(send)
    return exchange is not None and exchange.respond(status, lines, body)


def unsent_bytes(send: ASGISendCallable) -> int:
    """Return how many bytes of the response are still in the server's buffer."""
    exchange = exchange_of(send)
    return 0 if exchange is None else exchange.transport.get_write_buffer_size()


def note_accepted_token(send: ASGISendCallable) -> None:
    """Keep the connection when others must be closed: its client has shown an accepted token."""
    if (exchange := exchange_of(send)) is not None:
        exchange.connection.has_accepted_token = True


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
    exchange = exchange_of(send)
    return exchange is not None and exchange.is_superseded


def has_limits(receive: ASGIReceiveCallable) -> bool:
    """Return whether the server limits its connections, by the lifespan's `receive`.

    uvicorn does with our class alone.
    """
    config = getattr(getattr(receive, "__self__", None), "config", None)
    return isinstance(config, Config) and issubclass(config.http_protocol_class, Connection)


def exchange_of(send: ASGISendCallable) -> Exchange | None:
    """Return the exchange whose method `send` is; None with another server."""
    exchange = getattr(send, "__self__", None)
    return exchange if isinstance(exchange, Exchange) else None
