"""What holds for every answer: it carries the request's id, under /registry/ no error is a page, elsewhere a database
that is away is a page that says so, and it is reported."""

import time
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from service_registry.api import operation
from service_registry.api.errors import unavailable_page, without_pages
from service_registry.api.parting import part
from service_registry.api.reporting import report
from service_registry.database.outages import is_outage
from service_registry.http.request_id import id_of


class AnswerMiddleware:
    """Outermost, so that it also sees what other middleware refuses."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        began = time.perf_counter()
        request_id = id_of(request)
        response = self.get_response(request)
        if request.path_info.startswith("/registry/"):
            response = without_pages(request, response)
        response["X-Request-Id"] = request_id
        report(request, response, time.perf_counter() - began)
        part(request, response)
        return response

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Django's hook for what a view or its template raises: the admin's above all, as DRF's views raise nothing."""
        if not is_outage(error):
            return None
        operation.of(request).error = error
        return unavailable_page()
