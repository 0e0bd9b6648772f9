"""The outermost middleware: request ids, security headers, problems, request log."""

import time
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.exceptions import DisallowedHost, SuspiciousOperation
from django.core.handlers.asgi import ASGIRequest
from django.db import DataError, Error
from django.http import HttpRequest, HttpResponse, HttpResponsePermanentRedirect
from django.middleware.common import CommonMiddleware
from django.shortcuts import render
from django.utils.cache import patch_vary_headers
from django.views.defaults import bad_request

from service_registry.access_rules import access_rules
from service_registry.api.errors import TOO_EXPENSIVE, replace_error_page, unavailable_page, unknown_host_response
from service_registry.api.request_log import complete, log_entry, operation_of
from service_registry.database.outages import is_outage, is_statement_timeout
from service_registry.http import compression
from service_registry.http.paths import decode_segment, routing_path
from service_registry.http.request_log import REQUEST_ID_HEADER, record
from service_registry.http.security_headers import SECURITY_HEADERS
from service_registry.identity.admin_login import render_limit
from service_registry.identity.exceptions import TooManyLogins

PROBES = {"/livez", "/readyz", "/metrics"}


class RegistryMiddleware:
    """Give responses the request's id and security headers, and log the request.

    Under /registry/ no error is a page; elsewhere an unreachable database is an error page. It is outermost, so
    that it also sees what other middleware refuses.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        started = time.perf_counter()
        request_id = log_entry(request).request_id
        response = self.respond(request)
        response[REQUEST_ID_HEADER] = request_id
        for name, value in SECURITY_HEADERS.items():
            response.setdefault(name, value)
        record(complete(request, response), time.perf_counter() - started)
        return response

    def respond(self, request: HttpRequest) -> HttpResponse:
        if not request.path_info.startswith("/registry/"):
            return self.get_response(request)
        try:
            request.get_host()
        except DisallowedHost:
            return unknown_host_response(request)
        request.path_info = routing_path_of(request)
        return replace_error_page(request, self.get_response(request))

    def process_view(self, request: HttpRequest, _view: Any, _args: Any, parameters: dict[str, Any]) -> None:
        """Decode the parameters in the path, for the view and for the log."""
        if request.path_info.startswith("/registry/"):
            parameters.update({name: decode_segment(value) for name, value in parameters.items()})

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Answer for an unreachable database, a refused value or a limited login, where a view of Django's raises.

        DRF's views raise nothing.
        """
        if isinstance(error, TooManyLogins):
            return render_limit(request, error)
        # A value that PostgreSQL refuses, such as a NUL; or one that Django does, whose page for DEBUG fails on some.
        if isinstance(error, DataError | SuspiciousOperation):
            return bad_request(request, error)
        if not is_outage(error):
            return None
        log_entry(request).error = error
        return unavailable_page(TOO_EXPENSIVE) if is_statement_timeout(error) else unavailable_page()


def routing_path_of(request: HttpRequest) -> str:
    """Return the path by which a request is routed, without SCRIPT_NAME.

    ASGI servers pass the path as it was sent. WSGI (PEP 3333) knows it decoded only, but servers in production add it:
    uWSGI, mod_wsgi and Waitress as REQUEST_URI, Gunicorn as RAW_URI.
    """
    if isinstance(request, ASGIRequest):
        sent = request.scope.get("raw_path") or b""
    else:
        sent = str(request.META.get("REQUEST_URI") or request.META.get("RAW_URI") or "").encode("latin-1")
    prefix = request.META["SCRIPT_NAME"].encode()
    return routing_path(request.path_info, sent.removeprefix(prefix))


class CompressionMiddleware:
    """Compress what `http.compression` allows. Django's own also compresses pages, and ignores `q=0`."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if response.status_code in {200, 304} and operation_of(request) in compression.OPERATIONS:
            patch_vary_headers(response, compression.VARY.values())
            min_bytes = compression.min_bytes(request.headers.get("Accept-Encoding"))
            if min_bytes is not None and len(response.content) >= max(min_bytes, 1):
                response.content = compression.compress(response.content)
                response.headers["Content-Encoding"] = compression.GZIP
                response.headers["Content-Length"] = str(len(response.content))
        return response


class SessionCookieMiddleware(SessionMiddleware):
    """Django's sessions, without cookies that cannot name one: PostgreSQL refuses a NUL in a key."""

    def process_request(self, request: HttpRequest) -> None:
        key = request.COOKIES.get(settings.SESSION_COOKIE_NAME, "")
        if not (key.isascii() and key.isalnum()):
            request.COOKIES.pop(settings.SESSION_COOKIE_NAME, None)
        super().process_request(request)


class DeniedSessionMiddleware:
    """Refuse the sessions of denied operators. It comes after Django's authentication."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        try:
            denied = settings.SESSION_COOKIE_NAME in request.COOKIES and is_denied(request.user)
        except Error as error:  # reading the session is the first that fails without a database
            if not is_outage(error):
                raise
            log_entry(request).error = error
            return unavailable_page()
        if denied:
            context = {"title": "Not signed in", "reason": "An operator has denied you access to this registry."}
            return render(request, "service_registry/sign_in_refused.html", context, status=403)
        return self.get_response(request)


def is_denied(user: Any) -> bool:
    """Return whether the user of a session is denied, as the subject of its issuer."""
    return bool(getattr(user, "subject", None)) and access_rules.current().is_denied(user.issuer, user.subject)


class HostMiddleware(CommonMiddleware):
    """Refuse unknown hosts, except for probes and scrapes.

    These connect by the address of a machine or a pod.
    """

    def process_request(self, request: HttpRequest) -> HttpResponsePermanentRedirect | None:
        return None if request.path_info in PROBES else super().process_request(request)
