"""Authentication on the event loop."""

import asyncio

import pytest

from service_registry.asgi.auth import Authenticator
from service_registry.asgi.threads import ReadThreads
from service_registry.exceptions import NotAuthenticated, PermissionMissing
from service_registry.identity.exceptions import TokenInvalid
from service_registry.permissions import LIST_SERVICES, OVERRIDE
from tests.asgi.clients import make_request, request_scope
from tests.client import Api


def authenticator() -> Authenticator:
    return Authenticator(ReadThreads())


@pytest.mark.parametrize(
    ("headers", "error"), [({}, NotAuthenticated), ({"Authorization": "Bearer"}, TokenInvalid)], ids=["none", "empty"]
)
def test_authenticate_without_a_token_raises(headers: dict[str, str], error: type[Exception]) -> None:
    request = make_request(request_scope("GET", "/", headers))
    with pytest.raises(error):
        asyncio.run(authenticator().authenticate(request, LIST_SERVICES))
    assert request.log.actor is None


def test_authenticate_without_the_permission_raises_and_logs_the_actor(reader: Api) -> None:
    reader.get("/registry/services")  # so that the token and the grants are cached
    request = make_request(request_scope("GET", "/", {"Authorization": f"Bearer {reader.bearer}"}))
    with pytest.raises(PermissionMissing):
        asyncio.run(authenticator().authenticate(request, OVERRIDE))
    assert (request.log.actor or "").startswith("reader@")
