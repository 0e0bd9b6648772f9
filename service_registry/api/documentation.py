"""The OpenAPI document, and Swagger UI from local files: with a token, or a signed-in admin's session."""

from typing import Any

from django.contrib.auth.views import redirect_to_login
from django.http import HttpResponseBase
from drf_spectacular.views import SpectacularJSONAPIView, SpectacularSwaggerSplitView
from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import NotAuthenticated
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from service_registry.api.authentication import BearerAuthentication
from service_registry.api.parting import Parted
from service_registry.api.renderer import RegistryJSONRenderer


class SignedIn(BasePermission):
    """Any accepted token, or a session of somebody who may enter the admin."""

    def has_permission(self, request: Request, view: Any) -> bool:
        if request.user is None:
            raise NotAuthenticated
        return bool(getattr(request.user, "is_staff", True))


class SchemaView(Parted, SpectacularJSONAPIView):
    authentication_classes = (BearerAuthentication, SessionAuthentication)
    permission_classes = (SignedIn,)


class DocsView(Parted, SpectacularSwaggerSplitView):
    """A page for people: who is not signed in is asked to. Its script comes from a request of its own."""

    authentication_classes = (BearerAuthentication, SessionAuthentication)
    permission_classes = (SignedIn,)
    url_name = "schema"

    def handle_exception(self, exc: Exception) -> HttpResponseBase:  # type: ignore[override]
        if isinstance(exc, NotAuthenticated):
            return redirect_to_login(self.request.get_full_path())
        # A page would ask who is signed in, and with a token that is refused fail again.
        self.request.accepted_renderer = RegistryJSONRenderer()
        return super().handle_exception(exc)
