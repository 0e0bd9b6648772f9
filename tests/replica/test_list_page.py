"""Building list pages while the replica changes, and for many readers at once."""

import asyncio
import time

import pytest

from service_registry.asgi.flow_control import Answers
from service_registry.asgi.reads.listing import QUEUE_AT_MOST, Listing
from service_registry.asgi.reads.response_cache import Texts
from service_registry.exceptions import InvalidInput, TooBusy
from service_registry.replica.hub import Hub
from service_registry.replica.list_page import SERVICES_PER_PART, copy_in_parts
from service_registry.replica.store import InstanceEntry, Replica, ServiceEntry
from service_registry.schemas import ListQuery

INDEX = "0123abcd-7"
KEYS = [("default", f"s-{number:04}") for number in range(2 * SERVICES_PER_PART)]


def replica(*owners: str) -> Replica:
    """Return a replica of many services without instances."""
    return Replica(INDEX, 7, {key: ServiceEntry(owners) for key in KEYS})


def listing(seconds_ago: float) -> Listing:
    hub = Hub()
    hub.replica, hub.read_at = replica("team"), time.monotonic() - seconds_ago
    return Listing(hub, Texts(), Answers())


def test_copy_in_parts_reads_each_part_as_it_is_then() -> None:
    whole = replica("team")
    taken = copy_in_parts(whole, KEYS, None)
    first = next(taken)
    whole.services[KEYS[0]].put_instance("late", InstanceEntry(b"{}", "UP", "live"))
    whole.services[KEYS[-2]].put_instance("in-time", InstanceEntry(b"{}", "UP", "live"))
    del whole.services[KEYS[-1]]
    second = next(taken)
    assert [key for key, _service in first] == KEYS[:SERVICES_PER_PART]
    assert [key for key, _service in second] == KEYS[SERVICES_PER_PART:-1]
    assert not first[0][1].instances
    assert second[-1][1].instances.keys() == {"in-time"}


def test_copy_in_parts_of_other_owners_yields_empty_parts() -> None:
    assert [len(part) for part in copy_in_parts(replica("team"), KEYS, "other")] == [0, 0, 0]
    assert [len(part) for part in copy_in_parts(replica("team", "other"), KEYS, "other")] == [SERVICES_PER_PART] * 2 + [
        0
    ]


def test_equal_list_requests_share_one_text_and_too_many_are_refused() -> None:
    async def ask() -> list[object]:
        pages = listing(seconds_ago=10)
        queue = [pages.page(ListQuery()) for _ in range(QUEUE_AT_MOST + 1)]
        answers = await asyncio.gather(*queue, return_exceptions=True)
        assert await pages.page(ListQuery())
        return list(answers)

    *served, refused = asyncio.run(ask())
    assert isinstance(refused, TooBusy)
    assert len({id(page[0]) for page in served if isinstance(page, tuple)}) == 1
    assert all(isinstance(page, tuple) for page in served)


def test_fresh_replica_leaves_the_list_to_the_database() -> None:
    assert asyncio.run(listing(seconds_ago=0).page(ListQuery())) is None
    assert asyncio.run(Listing(Hub(), Texts(), Answers()).page(ListQuery())) is None


def test_list_with_a_malformed_cursor_is_invalid() -> None:
    with pytest.raises(InvalidInput):
        asyncio.run(listing(seconds_ago=10).page(ListQuery(after="nonsense")))
