"""Serve the issuer over HTTP, with the server of the standard library."""

import base64
import socketserver
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlsplit

from registry_project.devstack import issuer as development
from registry_project.devstack.issuer.issuer import Form, Issuer, OAuthError, Response, as_json

FORM_BYTES = 64 * 1024
IDLE_SECONDS = 10
LOOPBACK_NAMES = {"127.0.0.1", "localhost", "[::1]"}
FORM_TYPE = "application/x-www-form-urlencoded"


class Handler(BaseHTTPRequestHandler):
    """Handles one request: finds the endpoint, reads the form, writes the response."""

    server: "Server"
    timeout = IDLE_SECONDS
    server_version = "development-issuer"
    sys_version = ""

    def do_GET(self) -> None:
        self.respond(
            self.query, {"/authorize", "/end_session", "/userinfo", "/jwks", "/.well-known/openid-configuration"}
        )

    def do_POST(self) -> None:
        self.respond(self.form, {"/authorize", "/end_session", "/userinfo", "/token"})

    def respond(self, read: Callable[[], Form], paths: set[str]) -> None:
        target = urlsplit(self.path).path
        path = target.removeprefix(development.PATH)
        if path == target or path not in paths or not self.has_loopback_host():
            return self.write(as_json({"error": "not_found"}, HTTPStatus.NOT_FOUND))
        try:
            return self.write(self.endpoint(path)(read()))
        except OAuthError as error:
            return self.write(self.refuse(error))

    def endpoint(self, path: str) -> Callable[[Form], Response]:
        issuer = self.server.issuer
        return {
            "/authorize": issuer.authorize,
            "/end_session": issuer.end_session,
            "/token": lambda form: issuer.token(form, self.basic()),
            "/userinfo": lambda _: issuer.userinfo(self.bearer()),
            "/jwks": lambda _: issuer.jwks(),
            "/.well-known/openid-configuration": lambda _: issuer.discovery(),
        }[path]

    def has_loopback_host(self) -> bool:
        """Return whether Host is a loopback name: others would allow DNS rebinding."""
        return self.headers.get("Host", "").rsplit(":", 1)[0] in LOOPBACK_NAMES

    def query(self) -> Form:
        """Return the query without `subject`: only the login page's POST may pick one."""
        form = parse_form(urlsplit(self.path).query)
        form.pop("subject", None)
        return form

    def form(self) -> Form:
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > FORM_BYTES:
            raise OAuthError("invalid_request", "The body is too long.", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        if self.headers.get_content_type() != FORM_TYPE:
            raise OAuthError("invalid_request", f"The body must be {FORM_TYPE}.")
        return parse_form(self.rfile.read(int(length)).decode("latin-1"))

    def basic(self) -> tuple[str, str] | None:
        """Return the client's name and secret from the Authorization header.

        Each is form-encoded (RFC 6749, 2.3.1) before the Basic scheme of RFC 7617 is applied.
        """
        scheme, _, credentials = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            name, _, secret = base64.b64decode(credentials, validate=True).decode().partition(":")
        except ValueError:
            raise OAuthError("invalid_client", "The Authorization header cannot be read.") from None
        return unquote_plus(name), unquote_plus(secret)

    def bearer(self) -> str:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""

    def refuse(self, error: OAuthError) -> Response:
        response = as_json(error.as_dict(), error.status)
        if error.status == HTTPStatus.UNAUTHORIZED:
            scheme = "Bearer" if error.code == "invalid_token" else "Basic"
            response.headers["WWW-Authenticate"] = f'{scheme} realm="development-issuer", error="{error.code}"'
        return response

    def write(self, response: Response) -> None:
        self.send_response(response.status)
        for name, value in {"Content-Length": str(len(response.body)), **response.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(response.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's name
        """Log nothing: queries contain states and codes."""


def parse_form(text: str) -> Form:
    """Return a form or query as a dictionary.

    Raises OAuthError when a parameter is repeated (RFC 6749, 3.1).
    """
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise OAuthError("invalid_request", "Too many parameters.") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise OAuthError("invalid_request", "A parameter is repeated.")
    return form


class Server(ThreadingHTTPServer):
    """An HTTP server that listens on loopback only."""

    daemon_threads = True

    def __init__(self, port: int, data_dir: Path, audience: str) -> None:
        super().__init__((development.LOOPBACK, port), Handler)
        self.issuer = Issuer(development.url(self.server_port), data_dir, audience)

    def server_bind(self) -> None:
        """Bind without looking up the full host name, which can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = development.LOOPBACK, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: a client has closed its connection."""
