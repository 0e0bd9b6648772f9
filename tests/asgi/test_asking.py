"""Who asks, as the doors judge it that let people wait."""

import asyncio
import threading

import pytest
from django.conf import settings

from service_registry.asgi.auth import PAGING_AT_MOST, Askers, judged
from service_registry.exceptions import TooBusy
from service_registry.identity.access_tokens import verify_access_token
from tests.client import token


@pytest.mark.django_db
def test_a_token_that_is_good_by_the_leeway_alone_is_judged_again_at_the_leeways_end() -> None:
    """Else each stream would have its signature checked again and again until then."""
    principal = verify_access_token(token("registry-readers", ttl_seconds=-1))
    asking = judged(principal)
    assert asking.expires_at == principal.expires_at + settings.OIDC_LEEWAY_SECONDS
    assert asking.seconds_left > 0


def test_who_shows_a_token_does_not_queue_behind_those_who_page_and_they_are_bounded() -> None:
    async def crowded() -> None:
        askers, go = Askers(), threading.Event()
        pages = [asyncio.create_task(askers.paged(go.wait)) for _ in range(PAGING_AT_MOST)]
        try:
            await asyncio.sleep(0)
            assert await asyncio.wait_for(askers.on_thread(lambda: "judged"), 10) == "judged"
            with pytest.raises(TooBusy):
                await asyncio.wait_for(askers.paged(go.wait), 10)
        finally:
            go.set()
        assert await asyncio.gather(*pages) == [True] * PAGING_AT_MOST
        assert await askers.paged(lambda: "again") == "again"

    asyncio.run(crowded())
