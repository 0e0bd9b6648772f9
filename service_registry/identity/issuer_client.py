"""Fetch JSON from the issuer over HTTP, with limits on time and size.

The limits hold against a server that hangs, sends one byte at a time, or sends without end. `http.client` is used
directly: no proxies from the environment, no redirects, no cookies.
"""

import http.client
import json
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlencode, urlsplit

CONNECT_SECONDS = 2.0
TOTAL_SECONDS = 5.0
MAX_BYTES = 256 * 1024
LOOPBACK_HOSTS = {"127.0.0.1", "::1", "localhost"}


class FetchFailed(Exception):
    """The issuer gave no valid answer. The text says why, without the answer."""


@dataclass(frozen=True)
class Limits:
    """The limits of one request.

    Attributes:
        total_seconds: from the start of the name lookup to the last byte.
    """

    connect_seconds: float = CONNECT_SECONDS
    total_seconds: float = TOTAL_SECONDS
    max_bytes: int = MAX_BYTES


LIMITS = Limits()


def discover(issuer: str, limits: Limits = LIMITS) -> dict[str, Any]:
    """Return the metadata of the issuer (OpenID Connect Discovery, 4).

    Raises FetchFailed, also when the document is that of another issuer.
    """
    document = fetch_json(f"{issuer.rstrip('/')}/.well-known/openid-configuration", limits)
    if not isinstance(document, dict) or document.get("issuer") != issuer:
        raise FetchFailed("its discovery document does not name it as issuer")
    return document


def get_endpoint(metadata: dict[str, Any], name: str) -> str:
    """Return an address from the metadata. Raises FetchFailed when it has none."""
    url = metadata.get(name)
    if not isinstance(url, str):
        raise FetchFailed(f"its discovery document has no {name}")
    return url


@dataclass(frozen=True)
class Form:
    """The form of a POST request, and the value of its Authorization header."""

    fields: dict[str, str]
    authorization: str | None = None


def fetch_json(url: str, limits: Limits = LIMITS, form: Form | None = None) -> Any:
    """Return the JSON at `url`, by GET or, with a form, by POST. Raises FetchFailed."""
    started_at = time.monotonic()
    try:
        parts = trustworthy_parts(url)
        connection = open_connection(parts, limits)
        # A socket timeout restarts with every byte. Only this timer stops a server that sends one byte at a time.
        left = started_at + limits.total_seconds - time.monotonic()
        timer = threading.Timer(max(0.0, left), shut_down, [connection.sock])
        timer.start()
        try:
            body = exchange(connection, parts, form, limits)
        finally:
            timer.cancel()
            connection.close()
        if time.monotonic() - started_at >= limits.total_seconds:
            raise FetchFailed(f"it took longer than {limits.total_seconds:g} s")
        return json.loads(body)
    except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
        raise FetchFailed(f"no valid answer ({type(error).__name__})") from error


def is_trustworthy(parts: SplitResult) -> bool:
    """Return whether the address is https, or http on this machine."""
    encrypted = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK_HOSTS)
    return encrypted and bool(parts.hostname) and parts.username is None


def trustworthy_parts(url: str) -> SplitResult:
    """Split an address. Raises FetchFailed, or ValueError when it is malformed."""
    parts = urlsplit(url)
    if not is_trustworthy(parts):
        raise FetchFailed("its address is not https")
    return parts


def open_connection(parts: SplitResult, limits: Limits) -> http.client.HTTPConnection:
    """Connect without the TLS handshake, which has to fall under the total limit."""
    host = parts.hostname or ""
    if parts.scheme == "http":
        connection = http.client.HTTPConnection(host, parts.port)
    else:
        connection = http.client.HTTPSConnection(host, parts.port)
    plain = socket.create_connection((host, connection.port), limits.connect_seconds)
    plain.settimeout(limits.total_seconds)
    connection.sock = plain
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection.sock = context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
    return connection


def shut_down(sock: socket.socket) -> None:
    """Wake the thread that reads from the socket.

    The method of SSLSocket would drop its TLS layer and go on in clear text; the one of the plain socket does not.
    """
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        return  # the socket was closed at the same time


def exchange(connection: http.client.HTTPConnection, parts: SplitResult, form: Form | None, limits: Limits) -> bytes:
    """Send the request and return the body of a complete 200 answer."""
    if isinstance(connection.sock, ssl.SSLSocket):
        connection.sock.do_handshake()
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {"Accept": "application/json", "User-Agent": "service-registry"}
    if form is None:
        connection.request("GET", target, headers=headers)
    else:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        if form.authorization:
            headers["Authorization"] = form.authorization
        connection.request("POST", target, urlencode(form.fields).encode(), headers)
    response = connection.getresponse()
    if response.status != 200:
        raise FetchFailed(f"it answered {response.status}")
    body = response.read(limits.max_bytes + 1)
    if len(body) > limits.max_bytes:
        raise FetchFailed(f"its answer is longer than {limits.max_bytes} bytes")
    if response.length:
        raise FetchFailed("its answer is incomplete")
    return body
