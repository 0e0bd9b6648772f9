"""From a bearer token to a caller."""

from typing import Any, cast

from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from service_registry.caller import Caller
from service_registry.exceptions import ClockIsWrong
from service_registry.expiry import observation
from service_registry.identity.errors import TokenInvalid
from service_registry.identity.principal import Principal
from service_registry.identity.tokens import principal_of
from service_registry.permissions import grants


def caller_of(principal: Principal) -> Caller:
    return Caller(principal.actor, principal.groups, grants.of(principal.groups))


class BearerAuthentication(BaseAuthentication):
    """`Authorization: Bearer <JWT>` (RFC 6750, section 2.1). The only way in."""

    def authenticate(self, request: Request) -> tuple[Any, str] | None:
        """Raises TokenInvalid for a header that is no bearer token or a token that is refused, KeysUnavailable."""
        if observation.this_process().clock_is_wrong:
            raise ClockIsWrong
        header = request.headers.get("Authorization")
        if header is None:
            return None
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise TokenInvalid("the Authorization header must be: Bearer, a space and the token")
        return caller_of(principal_of(token.strip())), token

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="service-registry"'


def asking(request: Request) -> Caller:
    """Who asks: what BearerAuthentication made of the token."""
    return cast(Caller, request.user)
