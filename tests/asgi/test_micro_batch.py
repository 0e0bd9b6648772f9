"""Micro-batches of single requests, with small operations in place of the registry's."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest

from django.conf import LazySettings
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
from service_registry.exceptions import RateLimited, RegistryError, TooBusy
from service_registry.manager.batch import Submission
from service_registry.schemas import Heartbeat

CALLER = Caller("tester", frozenset(), frozenset())


class Text(str):
    """An outcome. A capital marks that of a request that was merged into another."""

    __slots__ = ()

    def again(self) -> "Text":
        return Text(self.upper())


Outcomes = list[Text | RegistryError | BaseException]


def submission(instance_id: str, epoch: int | None = None) -> Submission[Heartbeat]:
    return Submission(Heartbeat(service_name="web", instance_id=instance_id, epoch=epoch), CALLER)


def merge(first: Submission[Heartbeat], second: Submission[Heartbeat]) -> Submission[Heartbeat] | None:
    """Merge heartbeats with an epoch into the last of them."""
    return second if first.item.epoch and second.item.epoch else None


def submit_together(
    operation: Operation[Heartbeat, Text], instance_ids: Sequence[str], epochs: Sequence[int | None] = ()
) -> Outcomes:
    """Return the outcomes of requests that arrive at the same moment."""

    async def submit_all() -> Outcomes:
        with ThreadPoolExecutor(1) as threads:
            batcher = MicroBatcher[Heartbeat, Text](operation, merge, threads, "heartbeats")
            requests = [
                batcher.submit(submission(instance_id, epoch))
                for instance_id, epoch in zip_longest(instance_ids, epochs)
            ]
            return [*await asyncio.gather(*requests, return_exceptions=True)]

    return asyncio.run(submit_all())


class Recorder:
    """An operation whose outcome for each item is its instance id. It keeps its batches and their lock timeouts."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.lock_timeouts: list[str] = []

    def __call__(self, submissions: Sequence[Submission[Heartbeat]], lock_timeout: str) -> list[Text | RegistryError]:
        self.batches.append([each.instance_id for each in submissions])
        self.lock_timeouts.append(lock_timeout)
        return [Text(each.instance_id) for each in submissions]


def blocked(recorder: Recorder, go_on: threading.Event) -> Operation[Heartbeat, Text]:
    """Return an operation that waits for `go_on` after each batch."""

    def operation(submissions: Sequence[Submission[Heartbeat]], lock_timeout: str) -> list[Text | RegistryError]:
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


def test_requests_that_can_be_merged_are_done_once_by_the_last_and_all_answered() -> None:
    recorder, epochs = Recorder(), list(range(1, 101))

    def operation(submissions: Sequence[Submission[Heartbeat]], lock_timeout: str) -> list[Text | RegistryError]:
        assert [each.item.epoch for each in submissions] == [100]
        return recorder(submissions, lock_timeout)

    assert submit_together(operation, ["a"] * 100, epochs) == ["a", *["A"] * 99]
    assert recorder.batches == [["a"]]


def test_merged_requests_keep_the_order_of_those_that_cannot_be_merged() -> None:
    done: list[int | None] = []

    def operation(submissions: Sequence[Submission[Heartbeat]], _lock_timeout: str) -> list[Text | RegistryError]:
        done.extend(each.item.epoch for each in submissions)
        return [Text(each.item.epoch) for each in submissions]

    outcomes = submit_together(operation, ["a"] * 5, [1, 2, None, 3, 4])
    assert outcomes == ["2", "2", "None", "4", "4"]
    assert done == [2, None, 4]


def test_request_is_not_merged_into_one_that_has_given_up() -> None:
    """Otherwise what was answered with 503 might be done."""
    recorder, go_on = Recorder(), threading.Event()

    async def submit_all() -> Outcomes:
        with ThreadPoolExecutor(1) as threads:
            operation = blocked(recorder, go_on)
            keep_first = MicroBatcher[Heartbeat, Text](
                operation, lambda first, _second: first, threads, "heartbeats", 0.1
            )
            first = asyncio.ensure_future(keep_first.submit(submission("under-way")))
            await until(lambda: bool(recorder.batches))
            late = await asyncio.gather(keep_first.submit(submission("a", 1)), return_exceptions=True)
            keep_first.queue_seconds = 60
            second = asyncio.ensure_future(keep_first.submit(submission("a", 2)))
            await asyncio.sleep(0)
            waiting = [each.submission.item.epoch for each in keep_first.waiting["default", "web", "a"]]
            go_on.set()
            await asyncio.gather(first, return_exceptions=True)
            assert waiting[-1] == 2
            return [*late, await second]

    outcomes = asyncio.run(submit_all())
    assert [type(outcome) for outcome in outcomes] == [TooBusy, Text]
    assert recorder.batches == [["under-way"], ["a"]]


def test_batch_size_is_bounded() -> None:
    recorder, ids = Recorder(), [f"i-{number}" for number in range(1200)]
    assert submit_together(recorder, ids) == ids
    assert [len(batch) for batch in recorder.batches] == [500, 500, 200]


def test_item_that_fails_its_batch_fails_alone() -> None:
    recorder = Recorder()

    def operation(submissions: Sequence[Submission[Heartbeat]], lock_timeout: str) -> list[Text | RegistryError]:
        outcomes = recorder(submissions, lock_timeout)
        if "bad" in outcomes:
            raise ValueError("bad")
        return outcomes

    outcomes = submit_together(operation, ["a", "b", "bad", "c", "d"])
    assert [type(outcome) for outcome in outcomes] == [Text, Text, ValueError, Text, Text]
    assert recorder.lock_timeouts[0] == LOCK_TIMEOUT
    assert set(recorder.lock_timeouts[1:]) == {LOCK_TIMEOUT_IN_HALVES}


def test_outage_fails_the_whole_batch_at_once() -> None:
    recorder = Recorder()

    def operation(submissions: Sequence[Submission[Heartbeat]], lock_timeout: str) -> list[Text | RegistryError]:
        recorder(submissions, lock_timeout)
        raise OperationalError("the connection is closed") from AdminShutdown()

    outcomes = submit_together(operation, ["a", "b", "c"])
    assert [type(outcome) for outcome in outcomes] == [OperationalError] * 3
    assert recorder.batches == [["a", "b", "c"]]


def test_locked_row_fails_only_its_own_request() -> None:
    recorder = Recorder()

    def operation(submissions: Sequence[Submission[Heartbeat]], lock_timeout: str) -> list[Text | RegistryError]:
        outcomes = recorder(submissions, lock_timeout)
        if "locked" in outcomes:
            raise OperationalError("canceling statement due to lock timeout") from LockNotAvailable()
        return outcomes

    outcomes = submit_together(operation, ["a", "locked", "b"])
    assert [type(outcome) for outcome in outcomes] == [Text, OperationalError, Text]


def test_requests_beyond_the_queue_are_refused(settings: LazySettings) -> None:
    recorder, go_on = Recorder(), threading.Event()
    settings.REGISTRY_MAX_SHARE_PER_CALLER = 1.0

    async def submit_all() -> Outcomes:
        with ThreadPoolExecutor(1) as threads:
            batcher = MicroBatcher[Heartbeat, Text](blocked(recorder, go_on), merge, threads, "heartbeats")
            ids = [f"i-{number}" for number in range(MAX_QUEUED + 3)]
            requests = [asyncio.ensure_future(batcher.submit(submission(each))) for each in ids]
            await until(lambda: any(request.done() for request in requests))
            go_on.set()
            return [*await asyncio.gather(*requests, return_exceptions=True)]

    outcomes = asyncio.run(submit_all())
    assert [type(outcome) for outcome in outcomes] == [Text] * MAX_QUEUED + [TooBusy] * 3


def test_requests_of_a_caller_beyond_its_share_are_refused() -> None:
    outcomes = submit_together(Recorder(), [f"i-{number}" for number in range(MAX_QUEUED // 2 + 2)])
    assert [type(outcome) for outcome in outcomes] == [Text] * (MAX_QUEUED // 2) + [RateLimited] * 2


def test_requests_for_one_instance_beyond_its_bound_are_refused() -> None:
    outcomes = submit_together(Recorder(), ["a"] * (MAX_QUEUED_PER_INSTANCE + 2) + ["b"])
    assert [type(outcome) for outcome in outcomes] == [Text] * MAX_QUEUED_PER_INSTANCE + [TooBusy] * 2 + [Text]


def test_request_that_has_given_up_is_not_done_afterwards() -> None:
    """Neither does a request wait for ever."""
    recorder, go_on = Recorder(), threading.Event()

    async def submit_all() -> Outcomes:
        with ThreadPoolExecutor(1) as threads:
            batcher = MicroBatcher[Heartbeat, Text](
                blocked(recorder, go_on), merge, threads, "heartbeats", queue_seconds=0.1
            )
            first = asyncio.ensure_future(batcher.submit(submission("under-way")))
            await until(lambda: bool(recorder.batches))
            outcomes = await asyncio.gather(first, batcher.submit(submission("waiting")), return_exceptions=True)
            assert not batcher.waiting, "it holds no memory"
            go_on.set()
            batcher.queue_seconds = 60
            return [*outcomes, await batcher.submit(submission("later"))]

    outcomes = asyncio.run(submit_all())
    assert [type(outcome) for outcome in outcomes] == [TooBusy, TooBusy, Text]
    assert recorder.batches == [["under-way"], ["later"]]
