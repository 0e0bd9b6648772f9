"""The OpenAPI document and Swagger UI, for token holders and signed-in operators."""

import functools
from typing import Any

from django.contrib.auth.views import redirect_to_login
from django.http import HttpResponse, HttpResponseBase
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.views import SpectacularSwaggerSplitView
from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import NotAuthenticated
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from service_registry.api.authentication import BearerAuthentication
from service_registry.api.renderer import RegistryJSONRenderer
from service_registry.http.responses import render


class SignedIn(BasePermission):
    """Allow any valid token, and the session of an operator who may enter the admin."""

    def has_permission(self, request: Request, view: Any) -> bool:
        if request.user is None:
            raise NotAuthenticated
        return bool(getattr(request.user, "is_staff", True))


@functools.cache
def render_document() -> bytes:
    """Return the OpenAPI document as JSON. It depends on the code alone, and takes 500 ms of CPU time to build."""
    document = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return render(document)


class SchemaView(APIView):
    """The OpenAPI document as JSON."""

    authentication_classes = (BearerAuthentication, SessionAuthentication)
    permission_classes = (SignedIn,)
    schema = None  # the document does not describe itself

    def get(self, request: Request) -> HttpResponse:
        return HttpResponse(render_document(), content_type="application/vnd.oai.openapi+json")


class DocsView(SpectacularSwaggerSplitView):
    """Swagger UI from local files.

    A person who is not signed in is sent to the login page.
    """

    authentication_classes = (BearerAuthentication, SessionAuthentication)
    permission_classes = (SignedIn,)
    url_name = "schema"

    def handle_exception(self, exc: Exception) -> HttpResponseBase:  # type: ignore[override]
        if isinstance(exc, NotAuthenticated):
            return redirect_to_login(self.request.get_full_path())
        # The page would authenticate again, and fail again with a token that is refused.
        self.request.accepted_renderer = RegistryJSONRenderer()
        return super().handle_exception(exc)
