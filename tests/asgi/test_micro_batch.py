"""Micro-batches of single requests, with small operations in place of the registry's."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from django.db import OperationalError
from psycopg.errors import AdminShutdown, LockNotAvailable

from service_registry.asgi.writes.micro_batch import (
    LOCK_TIMEOUT,
    LOCK_TIMEOUT_IN_HALVES,
    MAX_QUEUED,
    MAX_QUEUED_PER_INSTANCE,
    MicroBatcher,
    Operation,
)
from service_registry.caller import Caller
from service_registry.exceptions import RegistryError, TooBusy
from service_registry.manager.batch import Submission
from service_registry.schemas import Heartbeat

CALLER = Caller("tester", frozenset(), frozenset())
Outcomes = list[str | RegistryError | BaseException]


def submission(instance_id: str) -> Submission[Heartbeat]:
    return Submission(Heartbeat(service_name="web", instance_id=instance_id), CALLER)


def submit_together(operation: Operation[Heartbeat, str], instance_ids: Sequence[str]) -> Outcomes:
    """Return the outcomes of requests that arrive at the same moment."""

    async def submit_all() -> Outcomes:
        with ThreadPoolExecutor(1) as threads:
            batcher = MicroBatcher[Heartbeat, str](operation, threads)
            requests = [batcher.submit(submission(instance_id)) for instance_id in instance_ids]
            return [*await asyncio.gather(*requests, return_exceptions=True)]

    return asyncio.run(submit_all())


class Recorder:
    """An operation whose outcome for each item is its instance id. It keeps its batches and their lock timeouts."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.lock_timeouts: list[str] = []

    def __call__(self, submissions: Sequence[Submission[Heartbeat]], lock_timeout: str) -> list[str | RegistryError]:
        self.batches.append([each.instance_id for each in submissions])
        self.lock_timeouts.append(lock_timeout)
        return [each.instance_id for each in submissions]


def blocked(recorder: Recorder, go_on: threading.Event) -> Operation[Heartbeat, str]:
    """Return an operation that waits for `go_on` after each batch."""

    def operation(submissions: Sequence[Submission[Heartbeat]], lock_timeout: str) -> list[str | RegistryError]:
        outcomes = recorder(submissions, lock_timeout)
        assert go_on.wait(timeout=60)
        return outcomes

    return operation


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


def test_requests_that_arrive_together_are_one_batch() -> None:
    recorder, ids = Recorder(), [f"i-{number}" for number in range(100)]
    assert submit_together(recorder, ids) == ids
    assert recorder.batches == [ids]
    assert recorder.lock_timeouts == [LOCK_TIMEOUT]


def test_second_request_for_an_instance_waits_for_the_next_batch() -> None:
    recorder = Recorder()
    assert submit_together(recorder, ["a", "b", "a", "a"]) == ["a", "b", "a", "a"]
    assert recorder.batches == [["a", "b"], ["a"], ["a"]]


def test_batch_size_is_bounded() -> None:
    recorder, ids = Recorder(), [f"i-{number}" for number in range(1200)]
    assert submit_together(recorder, ids) == ids
    assert [len(batch) for batch in recorder.batches] == [500, 500, 200]


def test_item_that_fails_its_batch_fails_alone() -> None:
    recorder = Recorder()

    def operation(submissions: Sequence[Submission[Heartbeat]], lock_timeout: str) -> list[str | RegistryError]:
        outcomes = recorder(submissions, lock_timeout)
        if "bad" in outcomes:
            raise ValueError("bad")
        return outcomes

    outcomes = submit_together(operation, ["a", "b", "bad", "c", "d"])
    assert [type(outcome) for outcome in outcomes] == [str, str, ValueError, str, str]
    assert recorder.lock_timeouts[0] == LOCK_TIMEOUT
    assert set(recorder.lock_timeouts[1:]) == {LOCK_TIMEOUT_IN_HALVES}


def test_outage_fails_the_whole_batch_at_once() -> None:
    recorder = Recorder()

    def operation(submissions: Sequence[Submission[Heartbeat]], lock_timeout: str) -> list[str | RegistryError]:
        recorder(submissions, lock_timeout)
        raise OperationalError("the connection is closed") from AdminShutdown()

    outcomes = submit_together(operation, ["a", "b", "c"])
    assert [type(outcome) for outcome in outcomes] == [OperationalError] * 3
    assert recorder.batches == [["a", "b", "c"]]


def test_locked_row_fails_only_its_own_request() -> None:
    recorder = Recorder()

    def operation(submissions: Sequence[Submission[Heartbeat]], lock_timeout: str) -> list[str | RegistryError]:
        outcomes = recorder(submissions, lock_timeout)
        if "locked" in outcomes:
            raise OperationalError("canceling statement due to lock timeout") from LockNotAvailable()
        return outcomes

    outcomes = submit_together(operation, ["a", "locked", "b"])
    assert [type(outcome) for outcome in outcomes] == [str, OperationalError, str]


def test_requests_beyond_the_queue_are_refused() -> None:
    recorder, go_on = Recorder(), threading.Event()

    async def submit_all() -> Outcomes:
        with ThreadPoolExecutor(1) as threads:
            batcher = MicroBatcher[Heartbeat, str](blocked(recorder, go_on), threads)
            ids = [f"i-{number}" for number in range(MAX_QUEUED + 3)]
            requests = [asyncio.ensure_future(batcher.submit(submission(each))) for each in ids]
            await until(lambda: any(request.done() for request in requests))
            go_on.set()
            return [*await asyncio.gather(*requests, return_exceptions=True)]

    outcomes = asyncio.run(submit_all())
    assert [type(outcome) for outcome in outcomes] == [str] * MAX_QUEUED + [TooBusy] * 3


def test_requests_for_one_instance_beyond_its_bound_are_refused() -> None:
    outcomes = submit_together(Recorder(), ["a"] * (MAX_QUEUED_PER_INSTANCE + 2) + ["b"])
    assert [type(outcome) for outcome in outcomes] == [str] * MAX_QUEUED_PER_INSTANCE + [TooBusy] * 2 + [str]


def test_request_that_has_given_up_is_not_done_afterwards() -> None:
    """Neither does a request wait for ever."""
    recorder, go_on = Recorder(), threading.Event()

    async def submit_all() -> Outcomes:
        with ThreadPoolExecutor(1) as threads:
            batcher = MicroBatcher[Heartbeat, str](blocked(recorder, go_on), threads, queue_seconds=0.1)
            first = asyncio.ensure_future(batcher.submit(submission("under-way")))
            await until(lambda: bool(recorder.batches))
            outcomes = await asyncio.gather(first, batcher.submit(submission("waiting")), return_exceptions=True)
            go_on.set()
            batcher.queue_seconds = 60
            return [*outcomes, await batcher.submit(submission("later"))]

    outcomes = asyncio.run(submit_all())
    assert [type(outcome) for outcome in outcomes] == [TooBusy, TooBusy, str]
    assert recorder.batches == [["under-way"], ["later"]]
