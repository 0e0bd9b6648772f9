"""Responses to requests that no handler sees."""

from service_registry.asgi.headers import SECURITY_LINES, write_lines
from service_registry.asgi.server.exchange import STATUS_LINES
from service_registry.exceptions import RegistryError
from service_registry.http.problems import CONTENT_TYPE, headers_for_error, problem_for_error
from service_registry.http.request_log import REQUEST_ID_HEADER, choose_request_id
from service_registry.http.responses import render


def render_refusal(error: RegistryError) -> bytes:
    """Return a whole response with the problem of an error, which ends its connection."""
    request_id = choose_request_id("")
    status, document = problem_for_error(error, request_id)
    body = render(document)
    headers = {
        "Content-Type": CONTENT_TYPE,
        "Content-Length": str(len(body)),
        "Connection": "close",
        REQUEST_ID_HEADER: request_id,
    }
    lines = SECURITY_LINES + write_lines((headers | headers_for_error(status, error)).items())
    return b"".join((STATUS_LINES[status], lines, b"\r\n", body))
