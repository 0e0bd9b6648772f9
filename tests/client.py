"""A client of the API for tests. It sends real tokens, and checks every response against its schema."""

import json
import re
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.test import Client
from pydantic import BaseModel

from registry_project.devstack.issuer.tokens import issue_token
from service_registry import schemas
from tests.leaks import CANARY, note_token

SCHEMAS: list[tuple[str, str, type[BaseModel] | None]] = [
    ("POST", r"/registry/register/?", schemas.LeasedInstance),
    ("POST", r"/registry/heartbeat/?", schemas.RenewedLease),
    ("POST", r"/registry/deregister/?", None),
    ("GET", r"/registry/services/?", schemas.ServicePage),
    ("GET", r"/registry/services/[^/]+/?", schemas.ServiceInstances),
    ("GET", r"/registry/changes/?", schemas.ChangePage),
    ("GET", r"/registry/services/[^/]+/health/?", schemas.ServiceHealth),
    ("GET", r"/registry/instance/[^/]+/[^/]+/health/?", schemas.ShownInstanceHealth),
    ("DELETE", r"/registry/services/[^/]+/?", None),
    ("PUT", r"/registry/services/[^/]+/owners/?", schemas.OwnedService),
    ("POST", r"/registry/services/[^/]+/release/?", schemas.ReleasedService),
    ("PUT", r"/registry/instance/[^/]+/[^/]+/status/?", schemas.OverriddenInstance),
    ("DELETE", r"/registry/instance/[^/]+/[^/]+/status/?", schemas.OverriddenInstance),
    ("GET", r"/registry/instance/[^/]+(/[^/]+)?/?", schemas.InstanceDetails),
]


def token(*groups: str, subject: str = "someone", ttl_seconds: int = 600) -> str:
    return note_token(
        issue_token(
            settings.REGISTRY_DATA_DIR,
            settings.OIDC_ISSUER,
            subject,
            groups,
            settings.OIDC_AUDIENCE,
            ttl_seconds=ttl_seconds,
        )
    )


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["code"])


def is_health_document(path: str, answer: Answer) -> bool:
    """Return whether a 503 is the health of a service or an instance, and no problem."""
    is_json = answer.headers.get("content-type") == "application/json"
    return answer.status == 503 and is_json and re.fullmatch(r"/registry/.*/health/?", path) is not None


def check(method: str, path: str, answer: Answer) -> None:
    """Raise AssertionError unless the response keeps to the contract of its path."""
    assert answer.status < 500 or answer.status == 503, (answer.status, answer.body)
    assert answer.headers["x-request-id"]
    if answer.status >= 400 and not is_health_document(path, answer):
        assert answer.headers["content-type"] == "application/problem+json", answer.body
        problem = schemas.Problem.model_validate(answer.json)
        assert problem.status == answer.status
        return
    model = next(model for allowed, pattern, model in SCHEMAS if allowed == method and re.fullmatch(pattern, path))
    if answer.status in {204, 304}:
        assert answer.body == b""
        return
    if isinstance(answer.json, dict) and "results" in answer.json:
        model = schemas.Results
    assert model is not None, path
    model.model_validate(answer.json)


class Api:
    """A client that sends a token of these groups with every call; without groups, no token."""

    def __init__(self, *groups: str, subject: str = "someone", bearer: str | None = None) -> None:
        self.client = Client(raise_request_exception=False)
        self.bearer = bearer if bearer is not None else token(*groups, subject=subject) if groups else None

    def call(self, method: str, path: str, body: Any = None, raw: bytes | None = None, **headers: str) -> Answer:
        if self.bearer is not None:
            headers = {"Authorization": f"Bearer {self.bearer}"} | headers
        content = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        content_type = headers.pop("Content_Type", "application/json")
        response = self.client.generic(method, path, content, content_type, headers=headers)
        lowered = {name.lower(): value for name, value in response.items()}
        answer = Answer(response.status_code, lowered, response.content)
        check(method, path.partition("?")[0], answer)
        return answer

    def get(self, path: str, **headers: str) -> Answer:
        return self.call("GET", path, None, None, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.call("POST", path, body, None, **headers)

    def register(self, service_name: str = "web", instance_id: str = "web-1", **fields: Any) -> Answer:
        return self.post("/registry/register", registration(service_name, instance_id, **fields))

    def heartbeat(self, service_name: str = "web", instance_id: str = "web-1", **fields: Any) -> Answer:
        return self.post("/registry/heartbeat", {"service_name": service_name, "instance_id": instance_id} | fields)

    def deregister(self, service_name: str = "web", instance_id: str = "web-1", **fields: Any) -> Answer:
        return self.post("/registry/deregister", {"service_name": service_name, "instance_id": instance_id} | fields)

    def listed(self, service_name: str = "web") -> list[str]:
        """Return the ids of the listed instances, whatever their status."""
        answer = self.get(f"/registry/services/{service_name}?status=all")
        return [instance["instance_id"] for instance in answer.json["instances"]]


def registration(service_name: str = "web", instance_id: str = "web-1", **fields: Any) -> dict[str, Any]:
    """Return a registration, with metadata that must not appear in any output."""
    body = {"service_name": service_name, "instance_id": instance_id, "host": "10.0.0.1", "port": 8080}
    return body | {"metadata": {"note": CANARY}} | fields


def make_registrations(size: int, service_name: str = "web") -> list[schemas.Registration]:
    return [schemas.Registration(**registration(service_name, f"i-{number}")) for number in range(size)]
