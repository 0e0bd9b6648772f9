"""Exceptions and error pages of DRF and Django as problem documents."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from rest_framework import exceptions as drf
from rest_framework.response import Response

from service_registry import exceptions
from service_registry.api.request_log import log_entry
from service_registry.http.problems import (
    CONTENT_TYPE,
    RETRY_AFTER_SECONDS,
    UNAVAILABLE,
    code_for_status,
    headers_for_error,
    is_failure,
    problem,
    problem_for_error,
    problem_for_status,
)
from service_registry.http.responses import render


def exception_handler(error: Exception, context: dict[str, Any]) -> Response:
    """Turn every exception of a view into a problem. DRF calls it."""
    request = context["request"]
    entry = log_entry(request)
    error = translate(error)
    if isinstance(error, drf.APIException):
        status, body = error.status_code, unknown_problem(error, entry.request_id)
    else:
        status, body = problem_for_error(error, entry.request_id)
    if is_failure(status, error):
        entry.error = error
    return Response(body, status, headers=headers_for_error(status, error), content_type=CONTENT_TYPE)


def translate(error: Exception) -> Exception:
    """Return the registry's error for an exception of DRF's that has one."""
    if isinstance(error, drf.NotAuthenticated):
        return exceptions.NotAuthenticated()
    if isinstance(error, drf.MethodNotAllowed):
        return exceptions.MethodNotAllowed()
    if isinstance(error, drf.UnsupportedMediaType):
        return exceptions.UnsupportedMediaType()
    return error


def unknown_problem(error: drf.APIException, request_id: str) -> dict[str, Any]:
    """Return the problem for an exception of DRF's that has no error of ours.

    An example is a failed CSRF check.
    """
    return problem(request_id, error.status_code, code_for_status(error.status_code), str(error.detail))


def replace_error_page(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """Return a problem in place of an error page of Django's.

    These are its 400, 403, 404 and 500, and those of DEBUG.
    """
    if response.status_code >= 400 and response.get("Content-Type", "").startswith("text/"):
        response.content = render(problem_for_status(response.status_code, log_entry(request).request_id))
        response["Content-Type"] = CONTENT_TYPE
        response["Content-Length"] = str(len(response.content))
    return response


def unknown_host_response(request: HttpRequest) -> HttpResponse:
    """Return the problem for a request whose Host header names another host."""
    status, body = problem_for_error(exceptions.UnknownHost(), log_entry(request).request_id)
    content = render(body)
    headers = {"Content-Length": str(len(content))}
    return HttpResponse(content, status=status, content_type=CONTENT_TYPE, headers=headers)


TOO_EXPENSIVE = "The database needs too long for this page. Narrow the search or the filters."


def unavailable_page(sentence: str = UNAVAILABLE) -> HttpResponse:
    """Return the page that a browser gets while the database is away, or a statement took too long.

    It is not a page of the admin, which would read its user.
    """
    page = f'<!doctype html>\n<html lang="en"><title>Unavailable</title><p>{sentence}</p></html>\n'
    return HttpResponse(page, status=503, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
