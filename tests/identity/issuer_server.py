"""An issuer for tests: an HTTP server with real keys, and any valid or bad token."""

import base64
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

AUDIENCE = "the-registry"


@cache
def private_key(name: str) -> Any:
    """Return a key, created once: rsa, rsa-other, rsa-1024, ec, ec-384 or ed."""
    if name.startswith("rsa"):
        return rsa.generate_private_key(public_exponent=65537, key_size=1024 if name == "rsa-1024" else 2048)
    if name == "ed":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP384R1() if name == "ec-384" else ec.SECP256R1())


def algorithm(name: str) -> Any:
    return jwt.PyJWS().get_algorithm_by_name(name)


def jwk(name: str, alg: str | None, **changed: Any) -> dict[str, Any]:
    """Return the public key as it is published; a member changed to None is left out."""
    family = {"r": "RS256", "e": "ES256"}[name[0]] if name != "ed" else "EdDSA"
    published = algorithm(family).to_jwk(private_key(name).public_key(), as_dict=True)
    published.pop("key_ops", None)
    members = {**published, "kid": name, "alg": alg, "use": "sig", **changed}
    return {member: value for member, value in members.items() if value is not None}


def base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def signed(header: dict[str, Any] | str, claims: dict[str, Any] | str, key: Any) -> str:
    """Sign exactly these texts, which no library would produce, by the header's `alg`."""
    texts = [part if isinstance(part, str) else json.dumps(part) for part in (header, claims)]
    content = ".".join(base64url(text.encode()) for text in texts)
    family = algorithm(json.loads(texts[0])["alg"])
    return f"{content}.{base64url(family.sign(content.encode(), family.prepare_key(key)))}"


@dataclass(frozen=True)
class In:
    """A time in a claim, in seconds from the creation of the token.

    Test cases are listed long before that.
    """

    seconds: float


class Handler(BaseHTTPRequestHandler):
    server: "Issuer"

    def do_GET(self) -> None:
        self.server.requested.append(self.path)
        self.server.answers.get(self.path, Handler.not_found)(self)
        self.server.answered.append(self.path)

    def do_POST(self) -> None:
        self.server.handle_post(self)

    def not_found(self) -> None:
        self.send_error(404)

    def send(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the standard library's name)
        pass


class Issuer(ThreadingHTTPServer):
    """Publishes `jwks`, a document or raw bytes.

    Attributes:
        answers: a function for each path; tests replace them by those of a faulty issuer.
        requested, answered: the paths of the requests, and of those that were answered completely.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/realm"
        self.jwks: Any = {"keys": [jwk("rsa", "RS256")]}
        self.discovery: Any = {"issuer": self.url, "jwks_uri": f"{self.url}/jwks"}
        self.requested: list[str] = []
        self.answered: list[str] = []
        self.answers: dict[str, Callable[[Handler], None]] = {
            "/realm/jwks": lambda handler: handler.send(as_bytes(self.jwks)),
            "/realm/.well-known/openid-configuration": lambda handler: handler.send(as_bytes(self.discovery)),
        }
        self.released = threading.Event()

    @property
    def fetches(self) -> int:
        return self.requested.count("/realm/jwks")

    def handle_post(self, handler: Handler) -> None:
        """Refuse the request: this issuer has no token endpoint."""
        handler.not_found()

    def hang(self, _handler: Handler) -> None:
        """Accept the request and send nothing until the test has ended."""
        self.released.wait(20)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: in some tests the client closes the connection."""

    def token(self, key: str = "rsa", alg: str = "RS256", kid: str | None = None, **changed: Any) -> str:
        """Return an access token with `changed` claims; None leaves a claim out."""
        header = {"alg": alg, "kid": kid or key, "typ": "at+jwt"}
        return signed(header, self.claims(**changed), private_key(key))

    def claims(self, **changed: Any) -> dict[str, Any]:
        now = int(time.time())
        claims = {"iss": self.url, "sub": "billing", "aud": AUDIENCE, "iat": now, "exp": now + 300} | changed
        made = {name: now + value.seconds if isinstance(value, In) else value for name, value in claims.items()}
        return {name: value for name, value in made.items() if value is not None}


def as_bytes(document: Any) -> bytes:
    return document if isinstance(document, bytes) else json.dumps(document).encode()
