"""Authentication on the event loop."""

import asyncio
from dataclasses import replace

import pytest
from django.conf import settings

from service_registry.asgi.auth import Authenticator, identify
from service_registry.asgi.threads import ReadThreads
from service_registry.exceptions import NotAuthenticated, PermissionMissing
from service_registry.identity.access_tokens import verify_access_token
from service_registry.identity.exceptions import TokenInvalid
from service_registry.permissions import LIST_SERVICES, OVERRIDE
from tests.asgi.clients import make_request, request_scope
from tests.client import Api, token


def authenticator() -> Authenticator:
    return Authenticator(ReadThreads())


@pytest.mark.django_db
def test_identity_of_a_token_in_its_leeway_expires_at_the_end_of_the_leeway() -> None:
    """Otherwise each event stream would verify the signature again and again until then."""
    principal = verify_access_token(token("registry-readers", ttl_seconds=-1))
    identity = identify(principal)
    assert identity.expires_at == principal.expires_at + settings.OIDC_LEEWAY_SECONDS
    assert identity.seconds_left > 0


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


def test_revalidate_authenticates_again_only_after_the_token_has_expired(reader: Api) -> None:
    reader.get("/registry/services")
    request = make_request(request_scope("GET", "/", {"Authorization": f"Bearer {reader.bearer}"}))

    async def revalidate() -> None:
        authenticates = authenticator()
        identity = await authenticates.authenticate(request, LIST_SERVICES)
        assert await authenticates.revalidate(request, LIST_SERVICES, identity) is identity
        expired = replace(identity, expires_at=0.0)
        assert await authenticates.revalidate(request, LIST_SERVICES, expired) == identity
        with pytest.raises(NotAuthenticated):
            await authenticates.revalidate(make_request(), LIST_SERVICES, expired)

    asyncio.run(revalidate())
