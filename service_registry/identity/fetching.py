"""JSON from the issuer over HTTP, within bounds that hold against a server that hangs, drips or floods.

The standard library's client is used by itself: no proxies from the environment, no redirects, no cookies.
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
    """The issuer did not answer as it should; the text says how, without what it sent."""


@dataclass(frozen=True)
class Limits:
    """`total_seconds` counts from the first address looked up to the last byte read."""

    connect_seconds: float = CONNECT_SECONDS
    total_seconds: float = TOTAL_SECONDS
    max_bytes: int = MAX_BYTES


LIMITS = Limits()


def discover(issuer: str, limits: Limits = LIMITS) -> dict[str, Any]:
    """The issuer's metadata (OpenID Connect Discovery, 4). Raises FetchFailed, also when it is another issuer's."""
    document = fetch_json(f"{issuer.rstrip('/')}/.well-known/openid-configuration", limits)
    if not isinstance(document, dict) or document.get("issuer") != issuer:
        raise FetchFailed("its discovery document does not name it as issuer")
    return document


def endpoint(metadata: dict[str, Any], name: str) -> str:
    """An address from the metadata. Raises FetchFailed where there is none."""
    url = metadata.get(name)
    if not isinstance(url, str):
        raise FetchFailed(f"its discovery document has no {name}")
    return url


@dataclass(frozen=True)
class Form:
    """What is posted, and with which Authorization header."""

    fields: dict[str, str]
    authorization: str | None = None


def fetch_json(url: str, limits: Limits = LIMITS, form: Form | None = None) -> Any:
    """What stands at `url`, or what it answers to `form`. Raises FetchFailed."""
    started_at = time.monotonic()
    try:
        parts = trustworthy_parts(url)
        connection = connected(parts, limits)
        # A timeout of the socket starts anew with every byte; only this ends a server that drips.
        ending = threading.Timer(max(0.0, started_at + limits.total_seconds - time.monotonic()), end, [connection.sock])
        ending.start()
        try:
            body = answer(connection, parts, form, limits)
        finally:
            ending.cancel()
            connection.close()
        if time.monotonic() - started_at >= limits.total_seconds:
            raise FetchFailed(f"it took longer than {limits.total_seconds:g} s")
        return json.loads(body)
    except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
        raise FetchFailed(f"no good answer ({type(error).__name__})") from error


def is_trustworthy(parts: SplitResult) -> bool:
    """Return whether keys may be fetched from this address: by https, or by http from this machine."""
    encrypted = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK_HOSTS)
    return encrypted and bool(parts.hostname) and parts.username is None


def trustworthy_parts(url: str) -> SplitResult:
    """Split an address. Raises FetchFailed when it is not trustworthy, ValueError when it cannot be parsed."""
    parts = urlsplit(url)
    if not is_trustworthy(parts):
        raise FetchFailed("its address is not https")
    return parts


def connected(parts: SplitResult, limits: Limits) -> http.client.HTTPConnection:
    """A connection whose TLS handshake is still to be made, so that it falls under the total limit."""
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


def end(sock: socket.socket) -> None:
    """Wake whoever reads from it. Not the method of a TLS socket, which would go on in the clear."""
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        return  # it was closed in the same moment


def answer(connection: http.client.HTTPConnection, parts: SplitResult, form: Form | None, limits: Limits) -> bytes:
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
        raise FetchFailed("its answer ends early")
    return body
