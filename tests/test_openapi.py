"""The OpenAPI document, and its committed copy in docs/."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema

from tests.client import Api

COMMITTED = Path(__file__).parents[1] / "docs" / "openapi.json"
METHODS = {"get", "put", "post", "delete"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    schema = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return dict(json.loads(json.dumps(schema)))


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    found = [
        operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method in METHODS and path not in {"/registry/schema", "/registry/docs"}
    ]
    assert len(found) >= 11
    return found


def test_document_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    validate_schema(document)  # type: ignore[no-untyped-call]
    assert document["openapi"].startswith("3.1")


def test_committed_copy_equals_the_generated_document(document: dict[str, Any]) -> None:
    if os.environ.get("REGISTRY_WRITE_OPENAPI"):
        COMMITTED.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    assert json.loads(COMMITTED.read_text()) == document


def test_every_operation_requires_a_token(document: dict[str, Any]) -> None:
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert all(operation["security"] == [{"bearer": []}] for operation in operations(document))


def test_every_operation_describes_its_problems(document: dict[str, Any]) -> None:
    for operation in operations(document):
        assert {"400", "401", "403", "405", "429", "500", "503"} <= set(operation["responses"])
        is_health = operation["operationId"] in {"service_health", "instance_health"}
        for status, response in operation["responses"].items():
            reports = {"application/json"} if is_health and status == "503" else set()
            assert status < "400" or set(response["content"]) == {"application/problem+json"} | reports


def test_document_has_the_limits_of_the_models(document: dict[str, Any]) -> None:
    registration = document["components"]["schemas"]["Registration"]["properties"]
    assert registration["port"] | {"minimum": 1, "maximum": 65535} == registration["port"]
    assert registration["service_name"]["pattern"].startswith("^[A-Za-z0-9]")
    assert registration["ttl_seconds"]["anyOf"][0]["maximum"] == 86400


SENT = ("Registration", "Heartbeat", "Deregistration", "OverrideRequest", "OwnersRequest", "ReleaseRequest")


def test_every_field_and_parameter_has_a_description(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    fields = {f"{name}.{field}": found for name in SENT for field, found in schemas[name]["properties"].items()}
    for operation in operations(document):
        for parameter in operation.get("parameters", ()):
            fields[f"{operation['operationId']} {parameter['name']}"] = parameter
    assert len(fields) > 50
    assert {name for name, found in fields.items() if not found.get("description")} == set()


def test_schema_is_served_with_a_token_alone(reader: Api) -> None:
    assert (
        reader.client.get("/registry/schema", headers={"Authorization": f"Bearer {reader.bearer}"}).status_code == 200
    )
    answer = Api().client.get("/registry/schema")
    assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")
