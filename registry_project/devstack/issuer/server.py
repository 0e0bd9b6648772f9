"""The issuer over HTTP, with the standard library's server."""

import base64
import binascii
import socketserver
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlsplit

from registry_project.devstack import issuer as development
from registry_project.devstack.issuer.errors import OAuthError
from registry_project.devstack.issuer.issuer import Answer, Form, Issuer, as_json

FORM_BYTES = 64 * 1024
IDLE_SECONDS = 10
LOOPBACK_NAMES = {"127.0.0.1", "localhost", "[::1]"}
FORM_TYPE = "application/x-www-form-urlencoded"


class Handler(BaseHTTPRequestHandler):
    """One request: find the endpoint, read the form, write the answer."""

    server: "Server"
    timeout = IDLE_SECONDS
    server_version = "development-issuer"
    sys_version = ""

    def do_GET(self) -> None:
        self.answer(
            self.query, {"/authorize", "/end_session", "/userinfo", "/jwks", "/.well-known/openid-configuration"}
        )

    def do_POST(self) -> None:
        self.answer(self.form, {"/authorize", "/end_session", "/userinfo", "/token"})

    def answer(self, read: Callable[[], Form], paths: set[str]) -> None:
        target = urlsplit(self.path).path
        path = target.removeprefix(development.PATH)
        if path == target or path not in paths or not self.asked_by_our_name():
            return self.write(as_json({"error": "not_found"}, HTTPStatus.NOT_FOUND))
        try:
            return self.write(self.endpoint(path)(read()))
        except OAuthError as error:
            return self.write(self.refusal(error))

    def endpoint(self, path: str) -> Callable[[Form], Answer]:
        issuer = self.server.issuer
        return {
            "/authorize": issuer.authorize,
            "/end_session": issuer.end_session,
            "/token": lambda form: issuer.token(form, self.basic()),
            "/userinfo": lambda _: issuer.userinfo(self.bearer()),
            "/jwks": lambda _: issuer.jwks(),
            "/.well-known/openid-configuration": lambda _: issuer.discovery(),
        }[path]

    def asked_by_our_name(self) -> bool:
        """A page in the browser whose own name was made to point here must not read what this issuer says."""
        return self.headers.get("Host", "").rsplit(":", 1)[0] in LOOPBACK_NAMES

    def query(self) -> Form:
        """The query, without who it is: that is picked on the page, by a POST."""
        form = once(urlsplit(self.path).query)
        form.pop("subject", None)
        return form

    def form(self) -> Form:
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > FORM_BYTES:
            raise OAuthError("invalid_request", "The body is too long.", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        if self.headers.get_content_type() != FORM_TYPE:
            raise OAuthError("invalid_request", f"The body must be {FORM_TYPE}.")
        return once(self.rfile.read(int(length)).decode("latin-1"))

    def basic(self) -> tuple[str, str] | None:
        """Name and secret of RFC 6749, 2.3.1: each form-encoded, then as RFC 7617."""
        scheme, _, credentials = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            name, _, secret = base64.b64decode(credentials, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise OAuthError("invalid_client", "The Authorization header cannot be read.") from None
        return unquote_plus(name), unquote_plus(secret)

    def bearer(self) -> str:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""

    def refusal(self, error: OAuthError) -> Answer:
        answer = as_json(error.as_dict(), error.status)
        if error.status == HTTPStatus.UNAUTHORIZED:
            scheme = "Bearer" if error.code == "invalid_token" else "Basic"
            answer.headers["WWW-Authenticate"] = f'{scheme} realm="development-issuer", error="{error.code}"'
        return answer

    def write(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's name
        """Say nothing: the terminal belongs to the registry, and a request's query holds states and codes."""


def once(text: str) -> Form:
    """A form or query as a dictionary. Raises OAuthError when a parameter comes twice (RFC 6749, 3.1)."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise OAuthError("invalid_request", "Too many parameters.") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise OAuthError("invalid_request", "A parameter comes twice.")
    return form


class Server(ThreadingHTTPServer):
    """Listens on loopback and nowhere else."""

    daemon_threads = True

    def __init__(self, port: int, data_dir: Path, audience: str) -> None:
        super().__init__((development.LOOPBACK, port), Handler)
        self.issuer = Issuer(development.url(self.server_port), data_dir, audience)

    def server_bind(self) -> None:
        """As the standard library, without asking the name service for this machine's full name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = development.LOOPBACK, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""
