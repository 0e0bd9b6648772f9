"""Requests are counted in memory, and none is lost on the way to the metrics."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import REGISTRY

from service_registry import metrics
from service_registry.http.request_log import RequestLogEntry, record
from service_registry.request_metrics import RequestCounts, request_counts


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0


class Increase:
    """The increase of a metric since this object was created."""

    def __init__(self, name: str, **labels: str) -> None:
        self.name, self.labels = name, labels
        self.before = counted(name, **labels)

    def __call__(self) -> float:
        return counted(self.name, **self.labels) - self.before


def read(operation: str, outcome: str = "ok") -> RequestLogEntry:
    return RequestLogEntry(
        operation=operation, route=None, method="GET", request_id="id-1", status=200, outcome=outcome
    )


@pytest.fixture
def gathering() -> Iterator[RequestCounts]:
    request_counts.flush()
    request_counts.gathering = True
    yield request_counts
    request_counts.stop_gathering()


def test_request_without_an_event_loop_is_counted_at_once() -> None:
    requests = Increase("registry_http_requests_total", method="GET", operation="discover", status="200")
    record(read("discover"), 0.002)
    assert requests() == 1


def test_gathered_requests_are_in_the_metrics_after_a_flush(gathering: RequestCounts) -> None:
    requests = Increase("registry_http_requests_total", method="GET", operation="list", status="200")
    outcomes = Increase("registry_operations_total", operation="list", outcome="ok")
    too_slow = Increase("registry_operations_total", operation="list", outcome="too_slow")
    seconds = Increase("registry_http_request_duration_seconds_sum", operation="list")
    buckets = {
        le: Increase("registry_http_request_duration_seconds_bucket", operation="list", le=le)
        for le in ("0.001", "0.0025", "0.005", "10.0", "+Inf")
    }
    for duration in (0.001, 0.002, 0.002, 20.0):
        record(read("list"), duration)
    record(read("list", "too_slow"), 0.002)
    assert requests() == outcomes() == 0
    gathering.flush()
    assert (requests(), outcomes(), too_slow()) == (5, 4, 1)
    assert seconds() == pytest.approx(20.007)
    assert {le: bucket() for le, bucket in buckets.items()} == {
        "0.001": 1,
        "0.0025": 4,
        "0.005": 4,
        "10.0": 4,
        "+Inf": 5,
    }
    gathering.flush()
    assert requests() == 5


def test_scrape_has_the_requests_before_it(gathering: RequestCounts, db: None) -> None:
    requests = Increase("registry_http_requests_total", method="GET", operation="watch", status="200")
    record(read("watch"), 0.002)
    metrics.exposition()
    assert requests() == 1


def test_requests_of_several_threads_are_counted_exactly_beside_flushes(gathering: RequestCounts) -> None:
    requests = Increase("registry_http_requests_total", method="GET", operation="changes", status="200")

    def count() -> None:
        for _ in range(25_000):
            gathering.count("GET", "changes", 200, "ok", 0.002)

    switch_interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            work = [threads.submit(count) for _ in range(4)]
            while not all(each.done() for each in work):
                gathering.flush()
    finally:
        sys.setswitchinterval(switch_interval)
    gathering.flush()
    assert requests() == 100_000


def test_items_of_an_array_are_counted_by_outcome() -> None:
    created = Increase("registry_operations_total", operation="register", outcome="created")
    invalid = Increase("registry_operations_total", operation="register", outcome="invalid")
    array = RequestLogEntry(operation="register", route=None, method="POST", request_id="id-1", items=3)
    array.item_outcomes = {"created": 2, "invalid": 1}
    array.note_response(200, "ok")
    record(array, 0.002)
    assert (created(), invalid()) == (2, 1)
