"""Authentication and permission on the event loop.

A thread is used only where a key or the grants must be fetched.
"""

import time
from dataclasses import dataclass

from django.conf import settings

from service_registry.asgi.request import Request
from service_registry.asgi.threads import ReadThreads
from service_registry.caller import Caller
from service_registry.http.authentication import bearer_token, caller_for
from service_registry.identity.access_tokens import verify_access_token, verify_access_token_at_once
from service_registry.identity.principal import Principal
from service_registry.permissions import Action, permission_cache


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller, and when the token expires.

    The time is in seconds since the epoch, the leeway included.
    """

    caller: Caller
    expires_at: float

    @property
    def seconds_left(self) -> float:
        return self.expires_at - time.time()


class Authenticator:
    """Authenticates requests and checks that the caller may try an action."""

    def __init__(self, threads: ReadThreads) -> None:
        self.threads = threads

    async def authenticate(self, request: Request, action: Action) -> Identity:
        """Return who makes the request.

        Raises:
            NotAuthenticated, TokenInvalid: no token, or one that is not accepted.
            KeysUnavailable, ClockIsWrong, NotMigrated, django.db.Error: no token can be verified now.
            PermissionMissing: the caller may not try the action.
        """
        token = bearer_token(request.header(b"authorization"))
        principal = verify_access_token_at_once(token)
        if principal is not None and permission_cache.is_fresh:
            identity = identify(principal)
        else:
            identity = await self.threads.run(lambda: identify(verify_access_token(token)))
        request.log.actor = identity.caller.actor
        action.require(identity.caller.granted)
        return identity

    async def revalidate(self, request: Request, action: Action, identity: Identity) -> Identity:
        """Return the identity, authenticated again when its token has expired.

        Raises as `authenticate`.
        """
        return identity if identity.seconds_left > 0 else await self.authenticate(request, action)


def identify(principal: Principal) -> Identity:
    return Identity(caller_for(principal), principal.expires_at + settings.OIDC_LEEWAY_SECONDS)
