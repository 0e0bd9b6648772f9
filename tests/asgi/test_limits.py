"""Places for requests, of a process and of one caller."""

import resource
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from django.conf import LazySettings, settings

from service_registry.asgi.limits import (
    OTHER_FILES,
    Places,
    SubscriberPlaces,
    raise_file_limit,
)
from service_registry.exceptions import RateLimited, TooBusy
from service_registry.metrics import refused_places, subscribers


def count_refused(kind: str, bound: str) -> float:
    value: float = refused_places.labels(kind, bound)._value.get()
    return value


def test_caller_takes_its_share_until_its_requests_end(settings: LazySettings) -> None:
    settings.REGISTRY_MAX_SHARE_PER_CALLER = 0.3
    places, before = Places("tests", 10), count_refused("tests", "caller")
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(places.hold("busy"))
        with (
            pytest.raises(RateLimited, match=r"3 of the 10 places for tests .*REGISTRY_MAX_SHARE"),
            places.hold("busy"),
        ):
            pass
        with places.hold("other"), places.hold(None):
            assert places.taken == 5
    assert count_refused("tests", "caller") == before + 1
    with places.hold("busy"):
        assert (places.taken, places.taken_by) == (1, {"busy": 1})
    assert (places.taken, places.taken_by) == (0, {})


def test_places_of_a_process_are_bounded_until_requests_end(settings: LazySettings) -> None:
    settings.REGISTRY_MAX_SHARE_PER_CALLER = 1.0
    places, before = Places("tests", 4), count_refused("tests", "process")
    with ExitStack() as stack:
        for actor in ("busy", "busy", "other", None):
            stack.enter_context(places.hold(actor))
        for refused in ("busy", "new", None):
            with pytest.raises(TooBusy), places.hold(refused):
                pass
    assert count_refused("tests", "process") == before + 3
    with places.hold("new"):
        pass


def test_smallest_share_is_one_place(settings: LazySettings) -> None:
    settings.REGISTRY_MAX_SHARE_PER_CALLER = 0.0
    places = Places("tests", 10)
    with places.hold("someone"), pytest.raises(RateLimited), places.hold("someone"):
        pass


def test_request_that_fails_gives_its_place_back() -> None:
    places = Places("tests", 1)
    for _ in range(3):
        with pytest.raises(KeyError), places.hold("failing"):
            raise KeyError


def test_subscriber_is_counted_by_kind_and_refused_for_longer(settings: LazySettings) -> None:
    settings.REGISTRY_MAX_SHARE_PER_CALLER = 0.0
    places, before = SubscriberPlaces(), subscribers.labels("poll")._value.get()
    with places.subscribe("someone", "poll"):
        assert subscribers.labels("poll")._value.get() == before + 1
        with pytest.raises(RateLimited) as refused, places.subscribe("someone", "read"):
            pass
    assert refused.value.retry_after_seconds == 5
    assert subscribers.labels("poll")._value.get() == before


@pytest.fixture
def low_file_limit() -> Iterator[int]:
    """Lower the soft limit as shells do, and return the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_file_limit_is_raised_to_the_number_of_connections(low_file_limit: int) -> None:
    needed = settings.REGISTRY_MAX_CONNECTIONS + OTHER_FILES
    raise_file_limit()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert (soft, hard) == (needed if low_file_limit == resource.RLIM_INFINITY else min(needed, hard), low_file_limit)
    raise_file_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)
