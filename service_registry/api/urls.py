"""The paths under /registry/, each with and without a trailing slash.

Plain WSGI serves all of them from here. Under ASGI the event loop answers the busiest ones before Django sees them:
see the routing table in `service_registry/asgi/app.py`.
"""

from collections.abc import Callable
from typing import Any

from django.urls import URLPattern, re_path

from service_registry.api.changes import ChangeViewSet
from service_registry.api.documentation import DocsView, SchemaView
from service_registry.api.instances import InstanceViewSet
from service_registry.api.registration import RegistrationViewSet
from service_registry.api.service_health import HealthViewSet
from service_registry.api.services import ServiceViewSet
from service_registry.api.watch import WatchViewSet


def route(path: str, view: Callable[..., Any], name: str | None = None) -> URLPattern:
    return re_path(rf"^{path}/?$", view, name=name)


SEGMENT = "[^/]+"
SERVICE = f"services/(?P<name>{SEGMENT})"
INSTANCE = f"instance/(?P<service_name>{SEGMENT})/(?P<instance_id>{SEGMENT})"

urlpatterns = [
    # Answered by the event loop under ASGI.
    route("register", RegistrationViewSet.as_view({"post": "register"})),
    route("heartbeat", RegistrationViewSet.as_view({"post": "heartbeat"})),
    route("deregister", RegistrationViewSet.as_view({"post": "deregister"})),
    route("services", ServiceViewSet.as_view({"get": "list"})),
    route(SERVICE, ServiceViewSet.as_view({"get": "retrieve", "delete": "delete_service"})),
    route("watch", WatchViewSet.as_view({"get": "list"})),
    # Answered by Django everywhere.
    route(f"{SERVICE}/owners", ServiceViewSet.as_view({"put": "set_owners"})),
    route(f"{SERVICE}/health", HealthViewSet.as_view({"get": "service_health"})),
    route(f"{SERVICE}/release", ServiceViewSet.as_view({"post": "release"})),
    route(f"instance/(?P<instance_id>{SEGMENT})", InstanceViewSet.as_view({"get": "retrieve_by_id"})),
    route(INSTANCE, InstanceViewSet.as_view({"get": "retrieve"})),
    route(f"{INSTANCE}/health", HealthViewSet.as_view({"get": "instance_health"})),
    route(f"{INSTANCE}/status", InstanceViewSet.as_view({"put": "set_status", "delete": "clear_status"})),
    route("changes", ChangeViewSet.as_view({"get": "list"})),
    route("schema", SchemaView.as_view(), "schema"),
    route("docs", DocsView.as_view(), "docs"),
]
