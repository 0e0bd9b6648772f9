"""How requests in ones become batches, with small verbs in place of the registry's."""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from service_registry.asgi.writes.micro_batch import WAITING, WAITING_FOR_ONE_KEY, Gathering, Verb
from service_registry.caller import Caller
from service_registry.exceptions import RegistryError, TooBusy
from service_registry.manager.batch import Submission
from service_registry.schemas import Heartbeat

CALLER = Caller("tester", frozenset(), frozenset())


def by(instance_id: str) -> Submission[Heartbeat]:
    return Submission(Heartbeat(service_name="web", instance_id=instance_id), CALLER)


def outcomes_of(verb: Verb[Heartbeat, str], instance_ids: Sequence[str]) -> list[str | RegistryError | BaseException]:
    """What those get who all ask at once."""

    async def ask() -> list[str | RegistryError | BaseException]:
        with ThreadPoolExecutor(1) as threads:
            gathered = Gathering[Heartbeat, str](verb, threads)
            asking = [gathered.outcome(by(instance_id)) for instance_id in instance_ids]
            return [*await asyncio.gather(*asking, return_exceptions=True)]

    return asyncio.run(ask())


class Recorder:
    """Answers each with its own id, and remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def __call__(self, asked: Sequence[Submission[Heartbeat]], lock_timeout: str) -> list[str | RegistryError]:  # noqa: ARG002
        self.batches.append([each.instance_id for each in asked])
        return [each.instance_id for each in asked]


def test_those_who_come_together_are_one_batch() -> None:
    recorder, ids = Recorder(), [f"i-{number}" for number in range(100)]
    assert outcomes_of(recorder, ids) == ids
    assert recorder.batches == [ids]


def test_a_second_request_for_the_same_instance_waits_for_the_next_batch() -> None:
    recorder = Recorder()
    assert outcomes_of(recorder, ["a", "b", "a", "a"]) == ["a", "b", "a", "a"]
    assert recorder.batches == [["a", "b"], ["a"], ["a"]]


def test_a_batch_has_a_bound() -> None:
    recorder, ids = Recorder(), [f"i-{number}" for number in range(1200)]
    assert outcomes_of(recorder, ids) == ids
    assert [len(batch) for batch in recorder.batches] == [500, 500, 200]


def test_an_item_that_fails_its_batch_fails_alone() -> None:
    def verb(asked: Sequence[Submission[Heartbeat]], lock_timeout: str) -> list[str | RegistryError]:
        if any(each.instance_id == "bad" for each in asked):
            raise ValueError("bad")
        return [each.instance_id for each in asked]

    ids = ["a", "b", "bad", "c", "d"]
    outcomes = outcomes_of(verb, ids)
    assert [type(outcome) for outcome in outcomes] == [str, str, ValueError, str, str]


def test_more_than_can_wait_are_refused() -> None:
    going_on = threading.Event()

    def verb(asked: Sequence[Submission[Heartbeat]], lock_timeout: str) -> list[str | RegistryError]:
        assert going_on.wait(timeout=30)
        return [each.instance_id for each in asked]

    async def ask() -> list[str | RegistryError | BaseException]:
        with ThreadPoolExecutor(1) as threads:
            gathered = Gathering[Heartbeat, str](verb, threads)
            asking = [asyncio.ensure_future(gathered.outcome(by(f"i-{n}"))) for n in range(WAITING + 3)]
            await asyncio.sleep(0.1)
            going_on.set()
            return [*await asyncio.gather(*asking, return_exceptions=True)]

    outcomes = asyncio.run(ask())
    assert [type(outcome) for outcome in outcomes] == [str] * WAITING + [TooBusy] * 3


def test_few_can_wait_for_the_same_instance() -> None:
    outcomes = outcomes_of(Recorder(), ["a"] * (WAITING_FOR_ONE_KEY + 2) + ["b"])
    assert [type(outcome) for outcome in outcomes] == [str] * WAITING_FOR_ONE_KEY + [TooBusy] * 2 + [str]


def test_who_has_given_up_is_not_served_afterwards() -> None:
    """And nobody waits for ever."""
    going_on, recorder = threading.Event(), Recorder()

    def verb(asked: Sequence[Submission[Heartbeat]], lock_timeout: str) -> list[str | RegistryError]:
        outcomes = recorder(asked, lock_timeout)
        assert going_on.wait(timeout=30)
        return outcomes

    async def ask() -> list[str | RegistryError | BaseException]:
        with ThreadPoolExecutor(1) as threads:
            gathered = Gathering[Heartbeat, str](verb, threads, patience_seconds=0.1)
            first = asyncio.ensure_future(gathered.outcome(by("under-way")))
            await asyncio.sleep(0.02)
            outcomes = await asyncio.gather(first, gathered.outcome(by("waiting")), return_exceptions=True)
            going_on.set()
            return [*outcomes, await gathered.outcome(by("later"))]

    outcomes = asyncio.run(ask())
    assert [type(outcome) for outcome in outcomes] == [TooBusy, TooBusy, str]
    assert recorder.batches == [["under-way"], ["later"]]
