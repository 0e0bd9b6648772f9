"""GET /metrics for Prometheus.

The caller needs `view_metrics`, unless REGISTRY_METRICS_PUBLIC is set.
"""

from typing import Any, ClassVar

from django.conf import settings
from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request
from rest_framework.viewsets import ViewSet

from service_registry import metrics, permissions
from service_registry.permissions import Action


class MetricsView(ViewSet):
    """The metrics of all processes of this machine, and of the registry as a whole."""

    http_method_names = ("get", "head")
    allowed_to: ClassVar[dict[str, Action]] = {"export": permissions.READ_METRICS}

    def get_authenticators(self) -> list[BaseAuthentication]:
        return [] if settings.REGISTRY_METRICS_PUBLIC else super().get_authenticators()

    def get_permissions(self) -> list[Any]:
        return [] if settings.REGISTRY_METRICS_PUBLIC else list(super().get_permissions())

    @extend_schema(exclude=True)
    def export(self, request: Request) -> HttpResponse:
        return HttpResponse(metrics.exposition(), content_type=CONTENT_TYPE_PLAIN_0_0_4)
