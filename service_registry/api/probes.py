"""Probes without a token: /livez and /readyz.

They serve orchestrators and load balancers.
"""

from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from service_registry.http.readiness import readiness


@csrf_exempt
@require_safe
def livez(_request: HttpRequest) -> JsonResponse:
    """Answer 200 while the process runs.

    Under ASGI the event loop answers instead of a thread (`asgi.app`).
    """
    return JsonResponse({"status": "ok"})


@csrf_exempt
@require_safe
def readyz(_request: HttpRequest) -> JsonResponse:
    """Answer 503 until this process may serve, then 200."""
    status, body = readiness()
    return JsonResponse(body, status=status, headers={} if status == 200 else {"Retry-After": "1"})
