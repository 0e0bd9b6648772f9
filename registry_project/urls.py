"""The URL configuration: probes, metrics, registry, login and admin."""

from django.contrib import admin
from django.urls import include, path

from service_registry.api import health
from service_registry.api.metrics import MetricsView

urlpatterns = [
    path("livez", health.livez),
    path("readyz", health.readyz),
    path("metrics", MetricsView.as_view({"get": "export"})),
    path("registry/", include("service_registry.api.urls")),
    path("oidc/", include("service_registry.identity.urls")),
    path("admin/", admin.site.urls),
]
