"""An ASGI application that does nothing: the floor that the web server sets for every request."""

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, Scope

from service_registry.asgi import transport

BODY = b"{}"
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"2")]


async def application(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Read the body and answer 200, at any path."""
    if scope["type"] == "lifespan":
        await answer_lifespan(receive, send)
        return
    while (message := await receive())["type"] == "http.request" and message["more_body"]:
        pass
    transport.note_accepted_token(send)  # as the registry does: a client without one is served at a bounded rate
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS, "trailers": False})
    await send({"type": "http.response.body", "body": BODY, "more_body": False})


async def answer_lifespan(receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
