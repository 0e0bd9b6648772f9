"""The web process."""

import asyncio
import signal
from collections.abc import Iterator

import pytest
from asgiref.typing import ASGISendEvent
from prometheus_client import REGISTRY

from service_registry.asgi.app import Application
from service_registry.asgi.flow_control import MAX_IN_FLIGHT_BYTES, SHUTDOWN_WRITE_SECONDS, ClientWriter
from service_registry.asgi.process import call_on_signals
from service_registry.asgi.server.exchange import Exchange
from service_registry.asgi.waiting import now
from service_registry.exceptions import TooBusy
from service_registry.http import memory_budget, readiness
from service_registry.replica.feed import Feed
from service_registry.replica.store import Replica
from service_registry.replica.subscribers import EndReason, Subscriber
from service_registry.request_metrics import request_counts


class StalledExchange(Exchange):
    """An exchange whose client reads nothing, with its own transport."""

    def __init__(self) -> None:
        self.transport = self  # type: ignore[assignment] # with the methods below
        self.is_answered = False

    async def send(self, _message: ASGISendEvent) -> None:
        """Leave the message in the buffer."""

    def get_write_buffer_size(self) -> int:
        return 1

    def abort(self) -> None:
        """Discard the buffer."""


def test_process_is_ready_once_its_replica_was_loaded(application: Application) -> None:
    check = readiness.process_checks["replica"]
    assert check() == "not loaded yet"
    application.process.hub.replica = Replica("0123abcd-7", 7)
    assert check() == "ok"
    application.process.hub.replica = None
    assert check() == "ok"


def test_memory_budget_refuses_on_a_thread_and_disconnects_stalled_clients(application: Application) -> None:
    process, responses = application.process, application.process.responses
    memory_budget.require_capacity()

    async def fill() -> None:
        process.feed = Feed(process.hub, asyncio.get_running_loop())
        stalled = ClientWriter(StalledExchange().send, responses)
        assert responses.reserve(stalled, MAX_IN_FLIGHT_BYTES)
        stalled.progress_at = now() - 60
        with pytest.raises(TooBusy):
            await asyncio.to_thread(memory_budget.require_capacity)
        async with asyncio.timeout(60):
            while responses.in_flight:
                await asyncio.sleep(0.005)
        await asyncio.to_thread(memory_budget.require_capacity)

    asyncio.run(fill())


def test_shutdown_ends_subscribers_and_shortens_writes(application: Application) -> None:
    async def shut_down() -> None:
        process = application.process
        subscriber = Subscriber([(None, None)], 0)
        process.hub.subscribers.attach(subscriber)
        process.begin_shutdown()
        assert (subscriber.end_reason, process.hub.stopping) == (EndReason.SHUTDOWN, True)
        assert process.responses.write_seconds == SHUTDOWN_WRITE_SECONDS

    asyncio.run(shut_down())


def test_stop_adds_the_gathered_requests_to_the_metrics(application: Application) -> None:
    labels = {"method": "GET", "operation": "discover", "status": "503"}
    before = REGISTRY.get_sample_value("registry_http_requests_total", labels) or 0
    request_counts.gathering = True
    request_counts.count("GET", "discover", 503, "unavailable", 0.1)
    application.process.stop([])
    assert REGISTRY.get_sample_value("registry_http_requests_total", labels) == before + 1
    assert not request_counts.gathering


@pytest.fixture
def received() -> Iterator[list[int]]:
    """The signals that the handlers of the server have received, which are installed before the process starts."""
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, lambda number, _frame: received.append(number))
    yield received
    for number, handler in before.items():
        signal.signal(number, handler)


def test_signal_calls_the_function_and_the_handler_of_the_server(received: list[int]) -> None:
    async def receive_signals() -> None:
        shut_down = asyncio.Event()
        call_on_signals(shut_down.set, asyncio.get_running_loop())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
            await asyncio.wait_for(shut_down.wait(), 60)
            shut_down.clear()

    asyncio.run(receive_signals())
    assert received == [signal.SIGTERM, signal.SIGINT]
