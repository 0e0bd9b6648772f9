"""The URL configuration: probes, metrics, registry, login and admin."""

from django.contrib import admin
from django.urls import include, path

from service_registry.api import probes
from service_registry.api.metrics import MetricsView

urlpatterns = [
    path("livez", probes.livez),
    path("readyz", probes.readyz),
    path("metrics", MetricsView.as_view({"get": "export"})),
    path("registry/", include("service_registry.api.urls")),
    path("oidc/", include("service_registry.identity.urls")),
    path("admin/", admin.site.urls),
]
