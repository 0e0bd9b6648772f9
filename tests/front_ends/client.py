"""Send requests to a front end, and check what every answer must have."""

import contextlib
import http.client
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError

import tests.client
from service_registry.schemas import Problem

# Replaced in paths and bodies by the namespace of the front end, so that each has its own data.
NAMESPACE = "NAMESPACE"
REQUEST_ID = "of-the-test"
KEEP_ALIVE_SECONDS = 3  # uvicorn closes idle connections after 5 s
TIMEOUT_SECONDS = 60

Pairs = Sequence[tuple[str, str]]

CODES = {
    400: {"invalid", "owner_required"},
    401: {"not_authenticated", "token_invalid"},
    403: {"permission_denied", "not_owner", "quota_exceeded"},
    404: {"not_found", "service_not_found", "instance_not_found"},
    405: {"method_not_allowed"},
    409: {"ambiguous_instance", "lease_superseded", "service_not_empty"},
    410: {"index_gone", "history_gone"},
    413: {"too_large"},
    415: {"unsupported_media_type"},
    421: {"unknown_host"},
    429: {"rate_limited"},
    503: {"unavailable"},
}
# The member that only problems of this code have.
MEMBER_OF = {
    "permission_denied": "permission",
    "instance_not_found": "reason",
    "ambiguous_instance": "candidates",
}
ON_EVERY_ANSWER = {
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}

# Members of a document that differ between two answers.
MOVING = {"request_id", "heartbeat_at", "expires_at", "registered_at", "epoch", "index", "at", "next", "since"}
# Headers that must be present in both answers, with any value.
MOVING_HEADERS = {"x-registry-index", "etag", "content-length"}
COMPARED_HEADERS = {
    *("content-type", "x-request-id", "www-authenticate", "retry-after", "content-security-policy"),
    *ON_EVERY_ANSWER,
    *MOVING_HEADERS,
}


@dataclass(frozen=True)
class Request:
    """A request, with placeholders in its path and body.

    Attributes:
        body: bytes, or a document that is sent as JSON.
        headers: replace default headers of the same name; an empty value removes the default.
        chunks: a body that is sent in chunks.
    """

    method: str
    path: str
    body: Any = None
    bearer: str | None = None
    headers: Pairs = ()
    chunks: Sequence[bytes] | None = None

    def sent_headers(self, content: bytes | None) -> Pairs:
        sent = {"Host": "localhost", "X-Request-Id": REQUEST_ID}
        if content is not None or self.chunks is not None:
            sent["Content-Type"] = "application/json"
        if self.chunks is not None:
            sent["Transfer-Encoding"] = "chunked"
        elif content is not None:
            sent["Content-Length"] = str(len(content))
        if self.bearer is not None:
            sent["Authorization"] = f"Bearer {self.bearer}"
        replaced = {name for name, _value in self.headers}
        kept = [(name, value) for name, value in sent.items() if name not in replaced]
        return [*kept, *((name, value) for name, value in self.headers if value)]


@dataclass(frozen=True)
class Answer:
    """An answer. Header names are in lower case; `cookies` has each Set-Cookie."""

    status: int
    headers: dict[str, str]
    body: bytes
    to_head: bool = False
    cookies: Sequence[str] = ()

    @cached_property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The code of a problem, None for other answers."""
        return str(self.json.get("code")) if self.is_problem else None

    @property
    def is_problem(self) -> bool:
        return bool(self.body) and self.headers.get("content-type") == "application/problem+json"

    @property
    def is_health(self) -> bool:
        """True for a 503 with the health of a service or an instance, and no problem."""
        is_json = self.status == 503 and self.headers.get("content-type") == "application/json"
        return is_json and (self.to_head or "healthy" in self.json)

    @property
    def is_stream(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")

    @property
    def error_fields(self) -> list[str]:
        """The top-level fields that a problem names."""
        return sorted({path.partition(".")[0] for path in self.json.get("errors", {})}) if self.is_problem else []

    @property
    def items(self) -> list[tuple[int, str | None]]:
        """Status and code of each item in the answer to an array."""
        return [(item["status"], item.get("error", {}).get("code")) for item in self.json["results"]]

    def __str__(self) -> str:
        return f"{self.status} {self.body[:300]!r}"


@dataclass
class FrontEnd:
    """A server, and one keep-alive connection to it."""

    name: str
    namespace: str
    port: int
    connection: http.client.HTTPConnection = field(init=False, repr=False)
    asked_at: float = 0.0

    def __post_init__(self) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_SECONDS)

    def close(self) -> None:
        self.connection.close()

    def ask(self, request: Request) -> Answer:
        if time.monotonic() - self.asked_at > KEEP_ALIVE_SECONDS:
            self.connection.close()
        chunked = request.chunks is not None
        content, chunks = self.content_of(request.body), [self.replaced(chunk) for chunk in request.chunks or ()]
        self.send_head(request, content)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may answer an unread body
            self.connection.endheaders(chunks if chunked else content, encode_chunked=chunked)
        answer = self.answer(to_head=request.method == "HEAD")
        if chunked or "Content-Length" in dict(request.headers):
            self.connection.close()  # the server may wait for the rest of the body
        return answer

    def content_of(self, body: Any) -> bytes | None:
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        return None if content is None else self.replaced(content)

    def replaced(self, content: bytes) -> bytes:
        return content.replace(NAMESPACE.encode(), self.namespace.encode())

    def send_head(self, request: Request, content: bytes | None) -> None:
        path = request.path.replace(NAMESPACE, self.namespace)
        self.connection.putrequest(request.method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in request.sent_headers(content):
            self.connection.putheader(name, value)

    def answer(self, *, to_head: bool) -> Answer:
        response = self.connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        head = Answer(response.status, headers, b"")
        if head.is_stream:
            self.connection.close()  # a stream does not end
            return head
        body = response.read()
        self.asked_at = time.monotonic()
        return Answer(response.status, headers, body, to_head, response.headers.get_all("Set-Cookie", []))


def faults_of(answer: Answer) -> Iterator[str]:
    """Yield each deviation from what every answer must have."""
    for name, value in ON_EVERY_ANSWER.items():
        if answer.headers.get(name) != value:
            yield f"{name} is {answer.headers.get(name)}"
    if answer.headers.get("x-request-id") != REQUEST_ID:
        yield f"x-request-id is {answer.headers.get('x-request-id')}"
    if "content-length" not in answer.headers and answer.status not in {204, 304} and not answer.is_stream:
        yield "there is no content-length"
    if answer.is_health:
        yield from faults_of_retry_after(answer)
    elif answer.status >= 400:
        yield from faults_of_problem(answer)


def faults_of_success(method: str, path: str, answer: Answer) -> Iterator[str]:
    """Yield how the document of a successful answer deviates from its model."""
    if (
        (answer.status != 200 and not answer.is_health)
        or answer.to_head
        or not path.startswith("/registry/")
        or "/watch" in path
    ):
        return
    try:
        tests.client.check(
            method, path.partition("?")[0], tests.client.Answer(answer.status, answer.headers, answer.body)
        )
    except (AssertionError, ValueError) as error:
        yield f"the document does not match its model: {error}"


def faults_of_retry_after(answer: Answer) -> Iterator[str]:
    if not re.fullmatch("[1-9][0-9]*", answer.headers.get("retry-after", "")):
        yield f"retry-after is {answer.headers.get('retry-after')}"


def faults_of_problem(answer: Answer) -> Iterator[str]:
    if answer.status == 401 and answer.headers.get("www-authenticate") != 'Bearer error="invalid_token"':
        yield f"www-authenticate is {answer.headers.get('www-authenticate')}"
    if answer.status in {429, 503}:
        yield from faults_of_retry_after(answer)
    if answer.status == 405 and "allow" not in answer.headers:
        yield "there is no allow"
    if answer.headers.get("content-type") != "application/problem+json":
        yield f"content-type is {answer.headers.get('content-type')}"
    elif not answer.to_head:
        yield from faults_of_document(answer)


def faults_of_document(answer: Answer) -> Iterator[str]:
    try:
        Problem.model_validate(answer.json)
    except (ValidationError, ValueError) as error:
        yield f"the problem does not match its model: {error}"
        return
    problem = answer.json
    code = problem["code"]
    if code not in CODES.get(answer.status, set()):
        yield f"code is {code}"
    for name, value in (
        ("status", answer.status),
        ("type", f"urn:service-registry:problem:{code}"),
        ("title", HTTPStatus(answer.status).phrase),
        ("request_id", REQUEST_ID),
    ):
        if problem[name] != value:
            yield f"{name} is {problem[name]}"
    if not problem["detail"]:
        yield "there is no detail"
    for of_code, member in MEMBER_OF.items():
        if (member in problem) != (code == of_code) and problem.get("reason") != "denied":
            yield f"{member} is {problem.get(member)}"


def comparable(front: FrontEnd, answer: Answer) -> tuple[int, dict[str, str], Any]:
    """Return status, headers and document without what differs between two answers or two front ends."""
    headers = {
        name: "" if name in MOVING_HEADERS else value
        for name, value in answer.headers.items()
        if name in COMPARED_HEADERS
    }
    if answer.status in {204, 304} or not answer.body:
        headers.pop("content-length", None)
        headers.pop("content-type", None)
    if answer.status == 405:
        headers["allow"] = ",".join(sorted(re.split(r",\s*", answer.headers.get("allow", ""))))
    text = answer.body.replace(f'"{front.namespace}"'.encode(), f'"{NAMESPACE}"'.encode())
    is_json = "json" in answer.headers.get("content-type", "") and text
    return answer.status, headers, without_moving(json.loads(text)) if is_json else b""


def without_moving(document: Any) -> Any:
    if isinstance(document, dict):
        return {name: without_moving(value) for name, value in document.items() if name not in MOVING}
    return [without_moving(each) for each in document] if isinstance(document, list) else document
