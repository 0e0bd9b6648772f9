"""From errors to answers: the one table of HTTP statuses, and problems as RFC 9457 writes them."""

from http import HTTPStatus
from typing import Any

from django.core.exceptions import SuspiciousOperation
from django.db import DataError
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from rest_framework.exceptions import APIException, MethodNotAllowed, NotAuthenticated, UnsupportedMediaType
from rest_framework.response import Response

from service_registry import exceptions
from service_registry.api import operation
from service_registry.api.parser import BodyTooLarge
from service_registry.api.renderer import RegistryJSONRenderer
from service_registry.database.outages import is_outage
from service_registry.http.request_id import id_of
from service_registry.identity.errors import KeysUnavailable, TokenInvalid

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 1
UNAVAILABLE = "The registry cannot reach its database, or it is too busy; try again."

STATUS_OF: dict[type[Exception], int] = {
    exceptions.InvalidInput: 400,
    exceptions.OwnerRequired: 400,
    TokenInvalid: 401,
    exceptions.PermissionMissing: 403,
    exceptions.NotProvisioned: 403,
    exceptions.NotOwner: 403,
    exceptions.QuotaExceeded: 403,
    exceptions.ServiceNotFound: 404,
    exceptions.InstanceNotFound: 404,
    exceptions.AmbiguousInstance: 409,
    exceptions.ServiceNotEmpty: 409,
    exceptions.LeaseSuperseded: 409,
    exceptions.IndexGone: 410,
    exceptions.HistoryGone: 410,
    KeysUnavailable: 503,
    exceptions.ClockIsWrong: 503,
    exceptions.TooBusy: 503,
    exceptions.NotMigrated: 503,
    exceptions.NotLoaded: 503,
    exceptions.TooManySubscribers: 429,
}

# What the framework raises, in the contract's codes.
CODE_OF: dict[type[Exception], str] = {
    NotAuthenticated: "not_authenticated",
    MethodNotAllowed: "method_not_allowed",
    BodyTooLarge: "too_large",
    UnsupportedMediaType: "unsupported_media_type",
}
CODE_OF_STATUS = {
    400: "invalid",
    401: "not_authenticated",
    403: "permission_denied",
    404: "not_found",
    405: "method_not_allowed",
    503: "unavailable",
}


def member(error: Exception, name: str) -> Any:
    """An optional member of a problem, taken from the error that carries it; what a stranger carries stays inside."""
    return getattr(error, name, None) or None if type(error) in STATUS_OF else None


def item_error(error: exceptions.RegistryError) -> dict[str, Any]:
    """The error of one item of an array."""
    members = {name: member(error, name) for name in ("errors", "permission", "reason")}
    return {"code": error.code, "detail": str(error)} | {name: value for name, value in members.items() if value}


def problem(request_id: str, status: int, code: str, detail: str, **members: Any) -> dict[str, Any]:
    return {
        "type": f"urn:service-registry:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        **{name: value for name, value in members.items() if value},
        "request_id": request_id,
    }


def judged(error: Exception) -> tuple[int, str, str]:
    """Status, code and detail of an error."""
    if type(error) in STATUS_OF:
        return STATUS_OF[type(error)], str(getattr(error, "code", "invalid")), str(error)
    if isinstance(error, APIException):
        code = CODE_OF.get(type(error)) or CODE_OF_STATUS.get(error.status_code, "invalid")
        return error.status_code, code, detail_of(error)
    if isinstance(error, DataError | UnreadablePostError | SuspiciousOperation):
        return 400, "invalid", "The request holds a value that cannot be kept, or did not arrive whole."
    if is_outage(error):
        return 503, "unavailable", UNAVAILABLE
    return 500, "internal", "The registry failed; the request id finds the failure in its log."


def detail_of(error: APIException) -> str:
    """The framework's text where it cannot repeat what was sent."""
    if isinstance(error, UnsupportedMediaType):
        return "The body must be application/json."
    if isinstance(error, NotAuthenticated):
        return "Send an access token: Authorization: Bearer <JWT>."
    return str(error.detail)


def headers_of(status: int, error: Exception) -> dict[str, str]:
    if status == 401:
        return {"WWW-Authenticate": 'Bearer error="invalid_token"'}
    if status in {429, 503}:
        return {"Retry-After": str(member(error, "retry_after_seconds") or RETRY_AFTER_SECONDS)}
    return {}


def exception_handler(error: Exception, context: dict[str, Any]) -> Response:
    """DRF's hook: every exception of a view becomes a problem."""
    request = context["request"]
    status, body = problem_of(error, id_of(request))
    if is_failure(status, error):
        operation.of(request).error = error
    return Response(body, status, headers=headers_of(status, error), content_type=CONTENT_TYPE)


def problem_of(error: Exception, request_id: str) -> tuple[int, dict[str, Any]]:
    """An error's status, and the problem that tells of it."""
    status, code, detail = judged(error)
    members = {name: member(error, name) for name in ("errors", "permission", "reason", "candidates")}
    return status, problem(request_id, status, code, detail, **members)


def is_failure(status: int, error: Exception) -> bool:
    """Whether the log should say what happened: it is no refusal, but something that should not have been."""
    return status >= 500 and type(error) not in STATUS_OF


def code_of_page(status: int) -> str:
    """The code for an error page that is Django's own."""
    return CODE_OF_STATUS.get(status, "internal" if status >= 500 else "invalid")


def without_pages(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """A problem in place of Django's own error page (its 400, 403, 404 and 500, and the technical ones of DEBUG)."""
    if response.status_code < 400 or not response.get("Content-Type", "").startswith("text/html"):
        return response
    status = response.status_code
    body = problem(id_of(request), status, code_of_page(status), f"{HTTPStatus(status).phrase}.")
    return HttpResponse(RegistryJSONRenderer().render(body), status=status, content_type=CONTENT_TYPE)


def unavailable_page() -> HttpResponse:
    """What a browser is shown while the database is away. It stands alone: a page of the admin would read its user."""
    page = f'<!doctype html>\n<html lang="en"><title>Unavailable</title><p>{UNAVAILABLE}</p></html>\n'
    return HttpResponse(page, status=503, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
