"""DRF authentication by bearer token."""

from typing import Any, cast

from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from service_registry.api.request_log import log_entry
from service_registry.caller import Caller
from service_registry.exceptions import CallerDenied, NotAuthenticated
from service_registry.http.authentication import authenticate


class BearerAuthentication(BaseAuthentication):
    """Authenticate by `Authorization: Bearer <JWT>` (RFC 6750, section 2.1)."""

    def authenticate(self, request: Request) -> tuple[Any, None] | None:
        """Return the caller, or None for a request without an Authorization header.

        Raises TokenInvalid, CallerDenied, KeysUnavailable, ClockIsWrong.
        """
        try:
            return authenticate(read_header(request)).caller, None
        except CallerDenied as denied:
            log_entry(request).actor = denied.actor
            raise
        except NotAuthenticated:
            return None  # another scheme may apply: the documentation takes an admin's session as well

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="service-registry"'


def read_header(request: Request) -> bytes | None:
    """Return the Authorization header as it was sent."""
    header = request.headers.get("Authorization")
    return None if header is None else header.encode("latin-1", "replace")


def caller_of(request: Request) -> Caller:
    """Return the caller whom BearerAuthentication has set on the request."""
    return cast(Caller, request.user)
