"""The paths under /registry/, each with and without its last slash."""

from collections.abc import Callable
from typing import Any

from django.urls import URLPattern, re_path

from service_registry.api.changes import ChangeViewSet
from service_registry.api.documentation import DocsView, SchemaView
from service_registry.api.instances import InstanceViewSet
from service_registry.api.registration import RegistrationViewSet
from service_registry.api.services import ServiceViewSet
from service_registry.api.watch import WatchViewSet


def at(path: str, view: Callable[..., Any], name: str | None = None) -> URLPattern:
    return re_path(rf"^{path}/?$", view, name=name)


PART = "[^/]+"

urlpatterns = [
    at("register", RegistrationViewSet.as_view({"post": "register"})),
    at("heartbeat", RegistrationViewSet.as_view({"post": "heartbeat"})),
    at("deregister", RegistrationViewSet.as_view({"post": "deregister"})),
    at("services", ServiceViewSet.as_view({"get": "list"})),
    at(f"services/(?P<name>{PART})", ServiceViewSet.as_view({"get": "retrieve", "delete": "delete_service"})),
    at("watch", WatchViewSet.as_view({"get": "list"})),
    at(f"instance/(?P<instance_id>{PART})", InstanceViewSet.as_view({"get": "retrieve_by_id"})),
    at(f"instance/(?P<service_name>{PART})/(?P<instance_id>{PART})", InstanceViewSet.as_view({"get": "retrieve"})),
    at(
        f"instance/(?P<service_name>{PART})/(?P<instance_id>{PART})/status",
        InstanceViewSet.as_view({"put": "set_status", "delete": "clear_status"}),
    ),
    at(f"services/(?P<name>{PART})/owners", ServiceViewSet.as_view({"put": "set_owners"})),
    at(f"services/(?P<name>{PART})/release", ServiceViewSet.as_view({"post": "release"})),
    at("changes", ChangeViewSet.as_view({"get": "list"})),
    at("schema", SchemaView.as_view(), "schema"),
    at("docs", DocsView.as_view(), "docs"),
]
