"""The end of a request in memory.

Python frees at once what nothing refers to, and what refers to itself only when its collector of cycles comes by, which
counts objects and not bytes: a page of the list has megabytes.
"""

from typing import Any

from django.http import HttpRequest, HttpResponseBase
from rest_framework.views import APIView

# What refers to Django's request, and is kept there.
KEPT = ("user", "auser", "_messages")


class Parted(APIView):
    """A view that lets go of its request and its answer."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        response = super().dispatch(request, *args, **kwargs)
        self.request.parser_context.clear()
        del self.request, self.response
        return response


def part(request: HttpRequest, response: HttpResponseBase) -> None:
    """The same for an answer that is complete, and for Django's request."""
    getattr(response, "renderer_context", {}).clear()
    for name in KEPT:
        vars(request).pop(name, None)
