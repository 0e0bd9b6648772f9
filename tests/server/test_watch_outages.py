"""Watches and reads from memory while the database does not respond, and afterwards."""

import itertools
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from tests.client import registration, token
from tests.server.event_stream import BackgroundStream
from tests.server.registry import Caller, Registry
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("outages")) as running:
        yield running


@pytest.fixture
def team(registry: Registry) -> Caller:
    caller = registry.caller("registry-services", "team")
    wait_for(lambda: caller.call("POST", "/registry/register", registration(ttl_seconds=3600)).status in {200, 201})
    return caller


def open_stream(registry: Registry, query: str) -> BackgroundStream:
    return BackgroundStream(registry.ports[0], token("registry-readers", subject="watcher"), query)


@pytest.mark.parametrize("outage", ["killed", "frozen"])
def test_reads_and_watches_continue_during_an_outage(registry: Registry, team: Caller, outage: str) -> None:
    path = "/registry/services/web"
    team.register("web", "web-1", weight=1)
    before = team.call("GET", path)
    assert "x-registry-stale" not in before.headers
    stream = open_stream(registry, f"index={team.read_newest_index()}")
    wait_for(lambda: "sync" in stream.kinds)
    with registry.stopped_postgres() if outage == "killed" else registry.frozen_postgres():
        ages = []
        wait_for(lambda: "x-registry-stale" in team.call("GET", path).headers)
        for _ in range(20):
            reply = team.call("GET", path)
            assert (reply.status, reply.body, reply.headers["etag"]) == (200, before.body, before.headers["etag"])
            ages.append(int(reply.headers["x-registry-stale"]))
            unchanged = team.call("GET", path, None, **{"If-None-Match": before.headers["etag"]})
            assert (unchanged.status, "x-registry-stale" in unchanged.headers) == (304, True)
            time.sleep(0.1)
        assert ages == sorted(ages)
        assert ages[-1] > ages[0] >= 2
        blocked = team.call("GET", f"{path}?index={before.json['index']}&wait=200ms")
        assert (blocked.status, blocked.body) == (200, before.body)
        polled = team.call("GET", f"/registry/watch?index={before.headers['x-registry-index']}&wait=200ms")
        assert (polled.status, polled.json["changes"]) == (200, [])
        assert team.call("POST", "/registry/register", registration(weight=2)).status == 503
        assert not stream.ended.is_set()
    wait_for(lambda: team.call("POST", "/registry/register", registration(weight=3)).status == 200)
    wait_for(lambda: any(change["instance"]["weight"] == 3 for change in stream.changes if change["instance"]))
    reply = team.call("GET", path)
    assert (reply.json["instances"][0]["weight"], "x-registry-stale" in reply.headers) == (3, False)
    assert not stream.ended.is_set()
    stream.close()


FEEDS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'service-registry-feed'"


def test_stream_while_the_feed_connection_is_lost_misses_and_repeats_nothing(registry: Registry, team: Caller) -> None:
    """The connection is terminated 20 times during 1,000 changes."""
    stream = open_stream(registry, f"index={team.read_newest_index()}&service=cut")
    ended = 0
    for number in range(1000):
        if number % 50 == 0:
            ended += len(registry.sql(FEEDS))
        team.call("POST", "/registry/register", registration("cut", f"i-{number}", ttl_seconds=3600))
    wait_for(lambda: len(stream.changes) >= 1001)
    assert [change["instance_id"] for change in stream.changes] == [None, *(f"i-{n}" for n in range(1000))]
    assert ended >= 10
    stream.close()


def has_length(items: list[str], size: int) -> bool:
    return len(items) >= size


def test_stream_while_the_database_is_killed_misses_and_repeats_nothing(registry: Registry, team: Caller) -> None:
    """All its processes, five times, while one caller registers: each acknowledged instance is sent once."""
    stream = open_stream(registry, f"index={team.read_newest_index()}&service=killed")
    acknowledged: list[str] = []
    numbers = itertools.count()
    done = threading.Event()

    def write() -> None:
        writer = registry.caller("registry-services", "team")
        while not done.is_set():
            instance_id = f"i-{next(numbers)}"
            if (
                writer.call("POST", "/registry/register", registration("killed", instance_id, ttl_seconds=3600)).status
                == 201
            ):
                acknowledged.append(instance_id)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(5):
            wait_for(partial(has_length, acknowledged, len(acknowledged) + 50))
            registry.kill_postgres()
    finally:
        done.set()
        thread.join()
    wait_for(lambda: set(acknowledged) <= {change["instance_id"] for change in stream.changes})
    indexes = [int(change["index"].partition("-")[2]) for change in stream.changes]
    assert indexes == sorted(set(indexes))
    registered = [change["instance_id"] for change in stream.changes if change["kind"] == "registered"]
    assert len(registered) == len(set(registered))
    assert stream.kinds.count("resync") == 0
    stream.close()


def test_open_write_transaction_elsewhere_does_not_delay_a_stream(registry: Registry, team: Caller) -> None:
    """A reader that waits for all older transaction ids would wait for it; the log assigns its own ids."""
    import psycopg

    stream = open_stream(registry, f"index={team.read_newest_index()}&service=open")
    with psycopg.connect(registry.postgres.url) as connection:
        connection.execute("CREATE TABLE elsewhere (id int)")
        connection.execute("INSERT INTO elsewhere VALUES (1)")
        team.register("open")
        wait_for(lambda: len(stream.changes) == 2)
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
        connection.rollback()
    stream.close()
