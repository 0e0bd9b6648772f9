"""Problem documents (RFC 9457) and the one table from errors to HTTP statuses."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from django.core.exceptions import SuspiciousOperation
from django.db import DataError
from django.http import UnreadablePostError

from service_registry import exceptions
from service_registry.database.outages import is_outage
from service_registry.identity.exceptions import KeysUnavailable, TokenInvalid

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 1
UNAVAILABLE = "The registry cannot reach its database, or it is too busy; try again."

STATUS_BY_ERROR: dict[type[Exception], int] = {
    exceptions.InvalidInput: 400,
    exceptions.MalformedRequest: 400,
    exceptions.OwnerRequired: 400,
    exceptions.NotAuthenticated: 401,
    TokenInvalid: 401,
    exceptions.CallerDenied: 403,
    exceptions.PermissionMissing: 403,
    exceptions.NotProvisioned: 403,
    exceptions.NotOwner: 403,
    exceptions.QuotaExceeded: 403,
    exceptions.ServiceNotFound: 404,
    exceptions.InstanceNotFound: 404,
    exceptions.MethodNotAllowed: 405,
    exceptions.HeadTimeout: 408,
    exceptions.RequestTimeout: 408,
    exceptions.AmbiguousInstance: 409,
    exceptions.ServiceNotEmpty: 409,
    exceptions.LeaseSuperseded: 409,
    exceptions.IndexGone: 410,
    exceptions.HistoryGone: 410,
    exceptions.BodyTooLarge: 413,
    exceptions.CompressedBody: 415,
    exceptions.UnsupportedMediaType: 415,
    exceptions.UnknownHost: 421,
    exceptions.RateLimited: 429,
    exceptions.HeadersTooLarge: 431,
    KeysUnavailable: 503,
    exceptions.ClockIsWrong: 503,
    exceptions.TooBusy: 503,
    exceptions.TooManyConnections: 503,
    exceptions.NotMigrated: 503,
    exceptions.NotLoaded: 503,
}

# Codes of errors that reach a client without an exception of ours: Django's error pages and DRF's exceptions.
CODE_BY_STATUS = {
    400: "invalid",
    401: "not_authenticated",
    403: "permission_denied",
    404: "not_found",
    405: "method_not_allowed",
    421: "unknown_host",
    429: "rate_limited",
    503: "unavailable",
}


def problem(request_id: str, status: int, code: str, detail: str, **members: Any) -> dict[str, Any]:
    """Return a problem document. Members that are empty are left out."""
    return {
        "type": f"urn:service-registry:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        **{name: value for name, value in members.items() if value},
        "request_id": request_id,
    }


def problem_for_error(error: Exception, request_id: str) -> tuple[int, dict[str, Any]]:
    """Return the HTTP status of an error and its problem document."""
    status, code, detail = classify(error)
    members = {name: optional_member(error, name) for name in ("errors", "permission", "reason", "candidates")}
    return status, problem(request_id, status, code, detail, **members)


def problem_for_status(status: int, request_id: str) -> dict[str, Any]:
    """Return the problem document that stands in for an error page of Django's."""
    return problem(request_id, status, code_for_status(status), f"{HTTPStatus(status).phrase}.")


def item_error(error: exceptions.RegistryError) -> dict[str, Any]:
    """Return the error object of one item of an array."""
    members = {name: optional_member(error, name) for name in ("errors", "permission", "reason")}
    return {"code": error.code, "detail": str(error)} | {name: value for name, value in members.items() if value}


def classify(error: Exception) -> tuple[int, str, str]:
    """Return the status, the stable code and the detail text of an error."""
    if type(error) in STATUS_BY_ERROR:
        return STATUS_BY_ERROR[type(error)], str(getattr(error, "code", "invalid")), str(error)
    if isinstance(error, DataError | UnreadablePostError | SuspiciousOperation):
        return 400, "invalid", "The request contains a value that cannot be stored, or its body was cut short."
    if is_outage(error):
        return 503, "unavailable", UNAVAILABLE
    return 500, "internal", "The registry failed; find the failure in its log by the request id."


def optional_member(error: Exception, name: str) -> Any:
    """Return a member that an error of ours carries.

    Attributes of foreign exceptions never reach a client.
    """
    return getattr(error, name, None) or None if type(error) in STATUS_BY_ERROR else None


def headers_for_error(status: int, error: Exception) -> dict[str, str]:
    """Return the headers that go with an error.

    They are a challenge with 401, and `Retry-After` with 429 and 503. The refusal of a compressed
    body names the accepted coding (RFC 9110, section 12.5.3).
    """
    if status == 401:
        return {"WWW-Authenticate": 'Bearer error="invalid_token"'}
    if isinstance(error, exceptions.CompressedBody):
        return {"Accept-Encoding": "identity"}
    if status in {429, 503}:
        return {"Retry-After": str(optional_member(error, "retry_after_seconds") or RETRY_AFTER_SECONDS)}
    return {}


def is_failure(status: int, error: Exception) -> bool:
    """Return whether the log should show the exception: it is not an expected refusal."""
    return status >= 500 and type(error) not in STATUS_BY_ERROR


def code_for_status(status: int) -> str:
    """Return the code of an error page that is Django's own."""
    return CODE_BY_STATUS.get(status, "internal" if status >= 500 else "invalid")


def outcome(status: int, document: Any) -> str:
    """Return an operation's outcome for metrics: `ok`, `created` or an error code."""
    if status >= 400:
        has_code = isinstance(document, Mapping) and "code" in document
        return str(document["code"]) if has_code else code_for_status(status)
    return "created" if status == 201 else "ok"
