"""Problem documents, and the table from errors to HTTP statuses."""

from http import HTTPStatus

import pytest
from django.core.exceptions import SuspiciousOperation
from django.db import DataError, IntegrityError, OperationalError

from service_registry import exceptions, schemas
from service_registry.http.problems import (
    STATUS_BY_ERROR,
    headers_for_error,
    is_failure,
    item_error,
    problem_for_error,
    problem_for_status,
)


def subclasses(error: type[Exception]) -> set[type[Exception]]:
    return {error}.union(*map(subclasses, error.__subclasses__())) if error.__subclasses__() else {error}


def test_every_error_of_the_registry_has_a_status() -> None:
    assert subclasses(exceptions.RegistryError) - {exceptions.RegistryError} <= STATUS_BY_ERROR.keys()
    assert all(HTTPStatus(status) for status in STATUS_BY_ERROR.values())


def test_code_of_an_error_belongs_to_one_status() -> None:
    statuses: dict[str, set[int]] = {}
    for error, status in STATUS_BY_ERROR.items():
        statuses.setdefault(getattr(error, "code", "token_invalid"), set()).add(status)
    assert {code: found for code, found in statuses.items() if len(found) > 1} == {}


def test_problem_carries_what_the_error_names_and_the_request_id() -> None:
    error = exceptions.InvalidInput.of_field("port", "range", "must be 1 to 65535")
    status, document = problem_for_error(error, "id-1")
    schemas.Problem.model_validate(document)
    assert (status, document["code"], document["request_id"]) == (400, "invalid", "id-1")
    assert document["errors"] == {"port": [{"code": "range", "message": "must be 1 to 65535"}]}
    assert document["type"] == "urn:service-registry:problem:invalid"
    assert "permission" not in document
    assert problem_for_error(exceptions.PermissionMissing("add_instance"), "id-1")[1]["permission"] == "add_instance"
    assert item_error(error) == {"code": "invalid", "detail": str(error), "errors": document["errors"]}


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (DataError("value too long"), 400, "invalid"),
        (SuspiciousOperation("too many fields"), 400, "invalid"),
        (OperationalError("connection refused"), 503, "unavailable"),
        (IntegrityError("violates a constraint"), 500, "internal"),
        (KeyError("secret"), 500, "internal"),
    ],
)
def test_problem_of_a_foreign_error_repeats_nothing_of_it(error: Exception, status: int, code: str) -> None:
    error.errors = error.permission = "secret"  # type: ignore[attr-defined] # attributes of a foreign exception
    found, document = problem_for_error(error, "id-1")
    schemas.Problem.model_validate(document)
    assert (found, document["code"]) == (status, code)
    assert not any(str(part) in str(document) for part in error.args)
    assert "secret" not in str(document)
    assert is_failure(found, error) == (status >= 500)


def test_expected_error_is_no_failure_in_the_log() -> None:
    assert not is_failure(503, exceptions.TooBusy())
    assert not is_failure(404, exceptions.ServiceNotFound())


def test_headers_of_an_error_are_a_challenge_or_a_time_to_retry() -> None:
    too_many = exceptions.RateLimited("This caller has 50 places", 5)
    assert headers_for_error(401, exceptions.NotAuthenticated()) == {"WWW-Authenticate": 'Bearer error="invalid_token"'}
    assert headers_for_error(429, too_many) == {"Retry-After": "5"}
    assert headers_for_error(503, OperationalError()) == {"Retry-After": "1"}
    assert headers_for_error(404, exceptions.ServiceNotFound()) == {}


@pytest.mark.parametrize(
    ("status", "code"), [(404, "not_found"), (403, "permission_denied"), (418, "invalid"), (502, "internal")]
)
def test_problem_in_place_of_an_error_page_has_the_code_of_its_status(status: int, code: str) -> None:
    document = problem_for_status(status, "id-1")
    assert (document["status"], document["code"], document["title"]) == (status, code, HTTPStatus(status).phrase)
