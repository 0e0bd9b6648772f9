"""Watchers and reads while the database is away, and after it is back."""

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

BACK_SECONDS = 5


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("outages")) as running:
        yield running


@pytest.fixture
def team(registry: Registry) -> Caller:
    caller = registry.caller("registry-services", "team")
    wait_for(lambda: caller.call("POST", "/registry/register", registration(ttl_seconds=3600)).status in {200, 201})
    return caller


def listen(registry: Registry, query: str) -> BackgroundStream:
    return BackgroundStream(registry.ports[0], token("registry-readers", subject="listening"), query)


@pytest.mark.parametrize("outage", ["killed", "frozen"])
def test_reads_and_watchers_live_through_an_outage(registry: Registry, team: Caller, outage: str) -> None:
    path = "/registry/services/web"
    team.register("web", "web-1", weight=1)
    before = team.call("GET", path)
    assert "x-registry-stale" not in before.headers
    listening = listen(registry, f"index={team.read_newest_index()}")
    wait_for(lambda: "sync" in listening.kinds)
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
        assert not listening.ended.is_set()
    back_at = time.monotonic()
    wait_for(lambda: team.call("POST", "/registry/register", registration(weight=3)).status == 200)
    wait_for(lambda: any(change["instance"]["weight"] == 3 for change in listening.changes if change["instance"]))
    reply = team.call("GET", path)
    caught_up = time.monotonic() - back_at
    print(f"{outage}: caught up {caught_up:.1f} s after it was back")
    assert (reply.json["instances"][0]["weight"], "x-registry-stale" in reply.headers) == (3, False)
    assert caught_up < BACK_SECONDS
    assert not listening.ended.is_set()
    listening.close()


FEEDS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'service-registry-feed'"


def test_nothing_is_missed_or_repeated_while_the_feed_is_cut_off(registry: Registry, team: Caller) -> None:
    """Its connection is ended 20 times among 1,000 changes."""
    listening = listen(registry, f"index={team.read_newest_index()}&service=cut")
    ended = 0
    for number in range(1000):
        if number % 50 == 0:
            ended += len(registry.sql(FEEDS))
        team.call("POST", "/registry/register", registration("cut", f"i-{number}"))
    wait_for(lambda: len(listening.changes) >= 1001)
    assert [change["instance_id"] for change in listening.changes] == [None, *(f"i-{n}" for n in range(1000))]
    assert ended >= 10
    listening.close()


def reached(items: list[str], size: int) -> bool:
    return len(items) >= size


def test_the_database_killed_again_and_again_loses_watchers_nothing(registry: Registry, team: Caller) -> None:
    """kill -9 of all its processes, five times, while one writer writes on: what was acknowledged is seen once."""
    listening = listen(registry, f"index={team.read_newest_index()}&service=killed")
    acknowledged: list[str] = []
    numbers = itertools.count()
    done = threading.Event()

    def write() -> None:
        writer = registry.caller("registry-services", "team")
        while not done.is_set():
            instance_id = f"i-{next(numbers)}"
            if writer.call("POST", "/registry/register", registration("killed", instance_id)).status == 201:
                acknowledged.append(instance_id)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(5):
            wait_for(partial(reached, acknowledged, len(acknowledged) + 50))
            registry.kill_postgres()
    finally:
        done.set()
        thread.join()
    wait_for(lambda: set(acknowledged) <= {change["instance_id"] for change in listening.changes})
    indexes = [int(change["index"].partition("-")[2]) for change in listening.changes]
    assert indexes == sorted(set(indexes))
    registered = [change["instance_id"] for change in listening.changes if change["kind"] == "registered"]
    assert len(registered) == len(set(registered))
    assert listening.kinds.count("resync") == 0
    listening.close()


def test_an_open_write_transaction_elsewhere_does_not_delay_the_watch(registry: Registry, team: Caller) -> None:
    """Snapshots by transaction ids would wait for it; the log's ids do not."""
    import psycopg

    listening = listen(registry, f"index={team.read_newest_index()}&service=open")
    with psycopg.connect(registry.postgres.url) as connection:
        connection.execute("CREATE TABLE elsewhere (id int)")
        connection.execute("INSERT INTO elsewhere VALUES (1)")
        team.register("open")
        wait_for(lambda: len(listening.changes) == 2, timeout_seconds=5)
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
        connection.rollback()
    listening.close()
