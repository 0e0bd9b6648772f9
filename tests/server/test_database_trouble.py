"""Whatever is wrong with the database, a caller gets 503 `unavailable` with Retry-After, and soon."""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from service_registry.permissions import CACHE_SECONDS
from tests.client import registration
from tests.server.registry import Caller, Registry, Reply
from tests.waiting import wait_for

KEY = {"service_name": "web", "instance_id": "web-1"}
STATUS = "/registry/instance/web/web-1/status"
WRITES: list[tuple[str, str, Any]] = [
    ("POST", "/registry/register", registration()),
    ("POST", "/registry/register", [registration()]),
    ("POST", "/registry/heartbeat", KEY),
    ("POST", "/registry/heartbeat", [KEY]),
    ("PUT", STATUS, {"status": "DOWN", "reason": "test"}),
    ("DELETE", STATUS, None),
    ("PUT", "/registry/services/web/owners", {"owners": ["team"]}),
    ("POST", "/registry/services/web/release", {"reason": "test"}),
    ("POST", "/registry/deregister", KEY),
]
READS_PAST_MEMORY: list[tuple[str, str, Any]] = [
    ("GET", "/registry/instance/web/web-1", None),
    ("GET", "/registry/instance/web-1", None),
    ("GET", "/registry/changes?service=web", None),
]
# Of these the list is answered from memory, once that has noticed that the database is away.
READS: list[tuple[str, str, Any]] = [("GET", "/registry/services", None), *READS_PAST_MEMORY]
# Answered from memory whatever the database does, once it is there.
FROM_MEMORY: list[tuple[str, str, Any]] = [("GET", "/registry/services/web", None)]
# The doors that wait take no HEAD.
BY_DJANGO: tuple[str, str, Any] = ("HEAD", "/registry/watch", None)
FREE_SLOTS = 12
END_CONNECTIONS = """
SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'service-registry'
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("trouble"), settings={"max_connections": str(FREE_SLOTS)}) as running:
        yield running


@pytest.fixture
def admin(registry: Registry) -> Caller:
    caller = registry.caller("registry-admins", "team")
    wait_for(lambda: caller.call("POST", "/registry/register", registration(ttl_seconds=3600)).status in {200, 201})
    return caller


def is_unavailable(reply: Reply) -> bool:
    return (reply.status, reply.json["code"], reply.headers.get("retry-after")) == (503, "unavailable", "1")


def all_unavailable(caller: Caller, calls: list[tuple[str, str, Any]]) -> None:
    replies = [caller.call(*call) for call in calls]
    assert [(reply.status, reply.body) for reply in replies if not is_unavailable(reply)] == []


def test_a_frozen_database_is_503_and_does_not_stop_the_probe(registry: Registry, admin: Caller) -> None:
    """More callers than threads: who waits for a thread is answered too, by one that has stopped waiting."""
    calls = WRITES + READS_PAST_MEMORY
    bearer = admin.headers["Authorization"].removeprefix("Bearer ")
    answered: list[Reply] = []
    passed: list[float] = []
    began = time.monotonic()

    def ask(place: int) -> None:
        method, path, body = calls[place % len(calls)]
        answered.append(registry.caller_with_token(bearer).call(method, path, body))
        passed.append(time.monotonic() - began)

    with ThreadPoolExecutor(48) as threads, registry.frozen_postgres():
        asked = [threads.submit(ask, place) for place in range(48)]
        time.sleep(0.5)
        assert registry.anonymous_caller().call("GET", "/livez").status == 200
        assert answered == []  # all threads wait, and the probe was answered first
        for future in asked:
            future.result(60)
        all_unavailable(registry.caller_with_token(bearer), calls)
        ready = registry.anonymous_caller().call("GET", "/readyz")
        assert (ready.status, ready.json["status"]) == (200, "degraded")
    statuses = dict(Counter(reply.status for reply in answered))
    print(f"{len(answered)} calls of a frozen database: {statuses}, the last after {max(passed):.1f} s")
    assert [reply.body for reply in answered if not is_unavailable(reply)] == []
    again = registry.caller_with_token(bearer)
    wait_for(lambda: again.call("POST", "/registry/heartbeat", KEY).status == 200)


def test_a_database_that_only_reads_refuses_writes_with_503(registry: Registry, admin: Caller) -> None:
    registry.configure("default_transaction_read_only", "on")
    try:
        wait_for(lambda: admin.call("POST", "/registry/heartbeat", KEY).status == 503)
        all_unavailable(admin, WRITES)
        assert [admin.call(*call).status for call in READS] == [200] * len(READS)
    finally:
        registry.configure("default_transaction_read_only", "off")
    wait_for(lambda: admin.call("POST", "/registry/heartbeat", KEY).status == 200)


@contextmanager
def every_slot_taken(registry: Registry) -> Iterator[None]:
    with ExitStack() as stack:

        def take() -> None:
            stack.enter_context(psycopg.connect(registry.postgres.url, connect_timeout=5))

        with pytest.raises(psycopg.OperationalError, match="too many clients"):  # noqa: PT012
            for _ in range(2 * FREE_SLOTS):
                take()
        yield


def test_no_connection_to_be_had_is_503(registry: Registry, admin: Caller) -> None:
    registry.web[0].kill()
    registry.web[0].wait()
    with every_slot_taken(registry):
        registry.web[0] = registry.start_web(registry.ports[0])
        wait_for(lambda: registry.is_alive(registry.ports[0]))
        again = registry.caller("registry-admins", "team")
        all_unavailable(again, WRITES + READS + FROM_MEMORY)
    wait_for(lambda: registry.is_ready(registry.ports[0]))
    wait_for(lambda: again.call("POST", "/registry/heartbeat", KEY).status == 200)


def test_reads_go_on_while_their_connections_are_ended(registry: Registry, admin: Caller) -> None:
    """One that is ended between two statements of a read, or in one, is made anew and the read done again."""
    ended: list[int] = []
    answered: list[int] = []
    done = threading.Event()

    def end() -> None:
        """Never twice in one read: that is more than is tried again."""
        with psycopg.connect(registry.postgres.url, autocommit=True) as connection:
            while not done.wait(random.uniform(0.01, 0.05)):
                before = len(answered)
                ended.extend(pid for pid, _ended in connection.execute(END_CONNECTIONS))
                while len(answered) < before + 2 and not done.wait(0.005):
                    pass

    thread = threading.Thread(target=end)
    thread.start()
    try:
        while len(ended) < 100 and thread.is_alive():
            for call in (*READS, BY_DJANGO):
                answered.append(admin.call(*call).status)  # noqa: PERF401 - another thread counts them as they come
    finally:
        done.set()
        thread.join()
    print(f"{len(answered)} reads while {len(ended)} connections were ended: {dict(Counter(answered))}")
    assert len(ended) >= 100
    assert set(answered) == {200}


def test_a_database_that_is_not_migrated_is_503(tmp_path: Path) -> None:
    """And so is one that lacks what migration makes last."""
    with Registry(tmp_path, migrated=False) as registry:

        def admin() -> Caller:
            return registry.caller("registry-admins", "team")

        all_unavailable(admin(), WRITES + READS + FROM_MEMORY)
        registry.migrate()
        registry.execute("DELETE FROM auth_group_permissions; DELETE FROM auth_group")
        time.sleep(CACHE_SECONDS)  # the pulse may have read them in between
        all_unavailable(admin(), WRITES + READS)
        registry.migrate()
        registry.execute("DELETE FROM service_registry_change")
        wait_for(lambda: is_unavailable(admin().call(*FROM_MEMORY[0])))
        all_unavailable(admin(), READS[:1] + FROM_MEMORY)
        registry.migrate()
        assert admin().call(*WRITES[0]).status == 201
        assert admin().call(*READS[0]).status == 200
