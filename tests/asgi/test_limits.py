"""Limits on watches and blocking reads."""

import resource
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from django.conf import settings

from service_registry.asgi.limits import (
    OTHER_FILES,
    SUBSCRIBERS_PER_PROCESS,
    WATCHES_PER_CALLER,
    SubscriberLimits,
    raise_file_limit,
)
from service_registry.exceptions import TooManySubscribers


def test_watches_of_a_caller_are_bounded_until_they_end() -> None:
    limits = SubscriberLimits()
    with ExitStack() as stack:
        for _ in range(WATCHES_PER_CALLER):
            stack.enter_context(limits.watch("busy", "stream"))
        with pytest.raises(TooManySubscribers), limits.watch("busy", "poll"):
            pass
        with limits.watch("other", "poll"), limits.wait("read"):
            pass
    with limits.watch("busy", "poll"):
        pass


def test_subscribers_of_a_process_are_bounded_until_they_end() -> None:
    limits = SubscriberLimits()
    with ExitStack() as stack:
        for number in range(SUBSCRIBERS_PER_PROCESS):
            stack.enter_context(limits.watch(f"caller-{number}", "stream") if number % 2 else limits.wait("read"))
        for refused in (limits.wait("read"), limits.watch("new", "stream")):
            with pytest.raises(TooManySubscribers), refused:
                pass
    with limits.watch("new", "stream"):
        pass


def test_subscriber_that_fails_is_no_longer_counted() -> None:
    limits = SubscriberLimits()
    for _ in range(WATCHES_PER_CALLER + 1):
        with pytest.raises(KeyError), limits.watch("failing", "stream"):
            raise KeyError


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
