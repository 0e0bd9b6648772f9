"""A registry that fails on every heartbeat once it has served for a while."""

import time
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

SERVES_SECONDS = 25


class FailingBeats:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        self.until = time.monotonic() + SERVES_SECONDS

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path == "/registry/heartbeat" and time.monotonic() > self.until:
            return HttpResponse(b"null", status=500, content_type="application/json")
        return self.get_response(request)
