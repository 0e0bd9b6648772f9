"""Who asks, as the doors judge it that let people wait."""

import pytest
from django.conf import settings

from service_registry.identity.tokens import principal_of
from service_registry.live.asking import judged
from tests.client import token


@pytest.mark.django_db
def test_a_token_that_is_good_by_the_leeway_alone_is_judged_again_at_the_leeways_end() -> None:
    """Else each stream would have its signature checked again and again until then."""
    principal = principal_of(token("registry-readers", ttl_seconds=-1))
    asking = judged(principal)
    assert asking.expires_at == principal.expires_at + settings.OIDC_LEEWAY_SECONDS
    assert asking.seconds_left > 0
