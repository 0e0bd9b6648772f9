"""/livez, answered on the event loop: a process whose threads all wait for the database works, and a restart would
mend nothing."""

from asgiref.typing import ASGISendCallable, HTTPScope

from service_registry.asgi.django_bridge import send_body, send_start
from service_registry.http.request_id import sane_or_new

PATH = "/livez"
BODY = b'{"status": "ok"}'


async def answer(scope: HTTPScope, send: ASGISendCallable) -> None:
    request_id = sane_or_new(dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1"))
    await send_start(send, 200, [(b"content-type", b"application/json"), (b"x-request-id", request_id.encode())])
    await send_body(send, BODY)
