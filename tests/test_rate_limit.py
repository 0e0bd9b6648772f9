"""Limits of events by key."""

from service_registry.rate_limit import RateLimit
from tests.waiting import wait_for


def test_burst_is_allowed_and_the_next_event_waits_for_the_interval() -> None:
    limit = RateLimit(burst=3, interval_seconds=60)
    assert [limit.take("a") for _ in range(3)] == [0, 0, 0]
    assert 0 < limit.take("a") <= 60
    assert limit.take("b") == 0


def test_refused_events_do_not_extend_the_wait() -> None:
    limit = RateLimit(burst=1, interval_seconds=60)
    limit.take("a")
    assert all(limit.take("a") <= 60 for _ in range(100))


def test_event_is_allowed_again_after_the_interval() -> None:
    limit = RateLimit(burst=1, interval_seconds=0.05)
    limit.take("a")
    wait_for(lambda: limit.take("a") == 0)


def test_key_that_is_forgotten_has_its_whole_burst() -> None:
    limit = RateLimit(burst=1, interval_seconds=60)
    limit.take("a")
    limit.forget("a")
    assert limit.take("a") == 0


def test_full_table_forgets_the_key_that_was_used_longest_ago() -> None:
    limit = RateLimit(burst=1, interval_seconds=60, max_keys=2)
    for key in ("a", "b", "a", "c"):
        limit.take(key)
    assert limit.take("a") > 0
    assert limit.take("b") == 0
