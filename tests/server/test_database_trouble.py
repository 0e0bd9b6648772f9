"""Calls during database outages are answered soon by 503 `unavailable` with Retry-After."""

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

from service_registry.access_rules import MAX_AGE_SECONDS
from tests.client import Answer, registration
from tests.server.registry import Caller, Registry
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
DATABASE_READS: list[tuple[str, str, Any]] = [
    ("GET", "/registry/instance/web/web-1", None),
    ("GET", "/registry/instance/web-1", None),
    ("GET", "/registry/changes?service=web", None),
]
# The list is answered from the database until the replica knows that the database is away, then from memory.
READS: list[tuple[str, str, Any]] = [("GET", "/registry/services", None), *DATABASE_READS]
# Answered from memory once the replica is loaded.
FROM_MEMORY: list[tuple[str, str, Any]] = [("GET", "/registry/services/web", None)]
# Django answers HEAD.
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


def is_unavailable(reply: Answer) -> bool:
    return (reply.status, reply.json["code"], reply.headers.get("retry-after")) == (503, "unavailable", "1")


def all_unavailable(caller: Caller, calls: list[tuple[str, str, Any]]) -> None:
    replies = [caller.call(*call) for call in calls]
    assert [(reply.status, reply.body) for reply in replies if not is_unavailable(reply)] == []


def test_calls_of_a_frozen_database_are_503_and_livez_answers(registry: Registry, admin: Caller) -> None:
    """There are more callers than threads. Those that wait for a thread are answered by one whose wait has ended."""
    calls = WRITES + DATABASE_READS
    bearer = admin.headers["Authorization"].removeprefix("Bearer ")
    answered: list[Answer] = []
    elapsed: list[float] = []
    began = time.monotonic()

    def ask(number: int) -> None:
        method, path, body = calls[number % len(calls)]
        answered.append(registry.caller_with_token(bearer).call(method, path, body))
        elapsed.append(time.monotonic() - began)

    with ThreadPoolExecutor(48) as threads, registry.frozen_postgres():
        futures = [threads.submit(ask, number) for number in range(48)]
        time.sleep(0.5)
        assert registry.anonymous_caller().call("GET", "/livez").status == 200
        assert answered == []  # all threads wait, and the probe is answered first
        for future in futures:
            future.result(60)
        all_unavailable(registry.caller_with_token(bearer), calls)
        ready = registry.anonymous_caller().call("GET", "/readyz")
        assert (ready.status, ready.json["status"]) == (200, "degraded")
    statuses = dict(Counter(reply.status for reply in answered))
    print(f"{len(answered)} calls of a frozen database: {statuses}, the last after {max(elapsed):.1f} s")
    assert [reply.body for reply in answered if not is_unavailable(reply)] == []
    again = registry.caller_with_token(bearer)
    wait_for(lambda: again.call("POST", "/registry/heartbeat", KEY).status == 200)


def test_writes_to_a_read_only_database_are_503(registry: Registry, admin: Caller) -> None:
    registry.configure("default_transaction_read_only", "on")
    try:
        wait_for(lambda: admin.call("POST", "/registry/heartbeat", KEY).status == 503)
        all_unavailable(admin, WRITES)
        assert [admin.call(*call).status for call in READS] == [200] * len(READS)
    finally:
        registry.configure("default_transaction_read_only", "off")
    wait_for(lambda: admin.call("POST", "/registry/heartbeat", KEY).status == 200)


@contextmanager
def take_every_slot(registry: Registry) -> Iterator[None]:
    with ExitStack() as stack:

        def take() -> None:
            stack.enter_context(psycopg.connect(registry.postgres.url, connect_timeout=5))

        with pytest.raises(psycopg.OperationalError, match="too many clients"):  # noqa: PT012
            for _ in range(2 * FREE_SLOTS):
                take()
        yield


def test_calls_without_a_free_connection_are_503(registry: Registry, admin: Caller) -> None:
    registry.web[0].kill()
    registry.web[0].wait()
    with take_every_slot(registry):
        registry.web[0] = registry.start_web(registry.ports[0])
        wait_for(lambda: registry.is_alive(registry.ports[0]))
        again = registry.caller("registry-admins", "team")
        all_unavailable(again, WRITES + READS + FROM_MEMORY)
    wait_for(lambda: registry.is_ready(registry.ports[0]))
    wait_for(lambda: again.call("POST", "/registry/heartbeat", KEY).status == 200)


def test_reads_while_connections_are_terminated_succeed(registry: Registry, admin: Caller) -> None:
    """A read whose connection is terminated runs again on a new one."""
    ended: list[int] = []
    answered: list[int] = []
    done = threading.Event()

    def terminate() -> None:
        """Terminate connections, never twice in one read, because a read is repeated once."""
        with psycopg.connect(registry.postgres.url, autocommit=True) as connection:
            while not done.wait(random.uniform(0.01, 0.05)):
                before = len(answered)
                ended.extend(pid for pid, _ended in connection.execute(END_CONNECTIONS))
                while len(answered) < before + 2 and not done.wait(0.005):
                    pass

    thread = threading.Thread(target=terminate)
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


def test_calls_of_a_database_without_migrations_are_503(tmp_path: Path) -> None:
    """So does one without the initial rows, which the last step of a migration creates."""
    with Registry(tmp_path, migrated=False) as registry:

        def admin() -> Caller:
            return registry.caller("registry-admins", "team")

        all_unavailable(admin(), WRITES + READS + FROM_MEMORY)
        registry.migrate()
        registry.execute("DELETE FROM auth_group_permissions; DELETE FROM auth_group")
        time.sleep(MAX_AGE_SECONDS)  # the pulse may have read them before the deletion
        all_unavailable(admin(), WRITES + READS)
        registry.migrate()
        registry.execute("DELETE FROM service_registry_change")
        wait_for(lambda: is_unavailable(admin().call(*FROM_MEMORY[0])))
        all_unavailable(admin(), READS[:1] + FROM_MEMORY)
        registry.migrate()
        assert admin().call(*WRITES[0]).status == 201
        assert admin().call(*READS[0]).status == 200
