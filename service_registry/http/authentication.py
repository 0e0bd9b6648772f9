"""The caller of a request, from its Authorization header (RFC 6750, section 2.1)."""

from service_registry.caller import Caller
from service_registry.exceptions import ClockIsWrong, NotAuthenticated
from service_registry.expiry import observation_window
from service_registry.identity.access_tokens import verify_access_token
from service_registry.identity.exceptions import TokenInvalid
from service_registry.identity.principal import Principal
from service_registry.permissions import permission_cache


def bearer_token(authorization: str | None) -> str:
    """Return the token of an Authorization header.

    Raises:
        ClockIsWrong: this process's clock differs from the database's, so that it would check times wrongly.
        NotAuthenticated: there is no header.
        TokenInvalid: the header carries no bearer token.
    """
    if observation_window.process_pulse().clock_is_wrong:
        raise ClockIsWrong
    if authorization is None:
        raise NotAuthenticated
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise TokenInvalid("the Authorization header must be: Bearer, a space and the token")
    return token


def authenticate(authorization: str | None) -> Caller:
    """Return the caller. Raises as `bearer_token` and `verify_access_token`.

    It may wait for signing keys, or for the database.
    """
    return caller_for(verify_access_token(bearer_token(authorization)))


def caller_for(principal: Principal) -> Caller:
    """Return the principal as a caller, with the permissions that its groups grant."""
    return Caller(principal.actor, principal.groups, permission_cache.granted_to(principal.groups))
