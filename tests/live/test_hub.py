"""What a process knows of the log, and what it does not take itself to know."""

import asyncio
import time
from collections.abc import Sequence

from service_registry.live.hub import Hub
from service_registry.live.replica import Change, Replica


def change(pk: int, size: int = 0) -> Change:
    """One that tells nothing of any instance."""
    return Change(pk, index(pk), "owners_changed", "default", "web", None, b"x" * size, b"", None, ("team",))


def index(pk: int) -> str:
    return f"0123abcd-{pk}"


def loaded(pk: int) -> Hub:
    hub = Hub()
    hub.load(Replica(index(pk), pk), [change(pk)], time.monotonic())
    return hub


def advance(hub: Hub, pks: Sequence[int], whole: bool = True) -> None:
    hub.advance([change(pk) for pk in pks], time.monotonic() if whole else None)


def test_a_page_that_is_not_the_last_does_not_tell_that_all_is_known() -> None:
    async def ask() -> tuple[bool, bool, bool | None]:
        hub = loaded(1)
        refreshed = asyncio.create_task(hub.refreshed())
        await asyncio.sleep(0)
        advance(hub, [2, 3], whole=False)
        await asyncio.sleep(0)
        early = refreshed.done()
        advance(hub, [4])
        assert hub.replica is not None
        return early, await refreshed, hub.knows(hub.replica, index(4))

    assert asyncio.run(ask()) == (False, True, True)


def test_a_process_that_catches_up_owns_up_to_its_age() -> None:
    hub = loaded(1)
    before = hub.read_at
    advance(hub, [2, 3], whole=False)
    assert hub.read_at == before
    advance(hub, [4])
    assert hub.read_at > before
