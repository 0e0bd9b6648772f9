"""The outermost middleware: request ids, security headers, problems, request log."""

import time
from collections.abc import Callable

from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse, HttpResponsePermanentRedirect
from django.middleware.common import CommonMiddleware

from service_registry.api.errors import replace_error_page, unavailable_page, unknown_host_response
from service_registry.api.request_log import complete, log_entry
from service_registry.database.outages import is_outage
from service_registry.http.request_log import REQUEST_ID_HEADER, record
from service_registry.http.security_headers import SECURITY_HEADERS

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
        return replace_error_page(request, self.get_response(request))

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Answer for an unreachable database where a view of Django's raises.

        DRF's views raise nothing.
        """
        if not is_outage(error):
            return None
        log_entry(request).error = error
        return unavailable_page()


class HostMiddleware(CommonMiddleware):
    """Refuse unknown hosts, except for probes and scrapes.

    These connect by the address of a machine or a pod.
    """

    def process_request(self, request: HttpRequest) -> HttpResponsePermanentRedirect | None:
        return None if request.path_info in PROBES else super().process_request(request)
