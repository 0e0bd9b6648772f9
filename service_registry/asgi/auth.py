"""Authentication and permission on the event loop.

A thread is used only where a key or the access rules must be fetched.
"""

from asgiref.typing import HTTPScope

from service_registry.asgi import transport
from service_registry.asgi.limits import ANONYMOUS
from service_registry.asgi.request import Request
from service_registry.asgi.threads import ReadThreads
from service_registry.exceptions import CallerDenied, ClockIsWrong, NotAuthenticated
from service_registry.http.authentication import authenticate, authenticate_at_once
from service_registry.http.callers import Identity
from service_registry.identity.exceptions import KeysUnavailable, TokenInvalid
from service_registry.permissions import Action


class Authenticator:
    """Authenticates requests and checks that the caller may try an action."""

    def __init__(self, threads: ReadThreads) -> None:
        self.threads = threads

    async def authenticate(self, request: Request, action: Action) -> Identity:
        """Return who makes the request.

        A request that takes time is authenticated again before it goes on: its token may have expired, and keys and
        grants may have changed. That is one look-up while nothing has.

        Raises:
            NotAuthenticated, TokenInvalid: no token, or one that is not accepted.
            KeysUnavailable, ClockIsWrong, NotMigrated, django.db.Error: no token can be verified now.
            CallerDenied: an operator has denied the caller.
            PermissionMissing: the caller may not try the action.
        """
        try:
            identity = await self.identify(request.headers.get(b"authorization"))
        except CallerDenied as denied:
            request.log.actor = denied.actor
            raise
        request.log.actor = identity.caller.actor
        transport.note_accepted_token(request.send)
        action.require(identity.caller.granted)
        return identity

    async def identify(self, authorization: bytes | None) -> Identity:
        """Return who has sent this header. Raises as `authenticate` does, without PermissionMissing."""
        identity = authenticate_at_once(authorization)
        if identity is None:
            identity = await self.threads.run(lambda: authenticate(authorization))
        return identity


def actor_at_once(scope: HTTPScope) -> str | None:
    """Return the caller of a request that Django authenticates; ANONYMOUS without an accepted token.

    None where that has to wait for keys or rules.
    """
    authorization = next((value for name, value in scope["headers"] if name == b"authorization"), None)
    try:
        identity = authenticate_at_once(authorization)
    except (NotAuthenticated, TokenInvalid, CallerDenied):
        return ANONYMOUS
    except (ClockIsWrong, KeysUnavailable):
        return None
    return identity.caller.actor if identity else None
