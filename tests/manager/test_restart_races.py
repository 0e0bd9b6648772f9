"""Races of an old process with its successor at the same host and port: threads with their own connections."""

import threading
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

from service_registry import manager
from service_registry.caller import Caller
from service_registry.exceptions import LeaseSuperseded
from service_registry.models import Change, Instance
from service_registry.schemas import Deregistration, Heartbeat, Registration
from tests.client import registration
from tests.manager.concurrency import run_concurrently

pytestmark = pytest.mark.django_db(transaction=True)

TRIALS = 60
CALLS_AFTERWARDS = 3
OWNER = Caller("owner", frozenset({"team"}), frozenset({"register_instance", "deregister_instance"}))
KEY = {"service_name": "web", "instance_id": "web-1"}
OLD = KEY | {"incarnation": "old"}


class Restart:
    """An old process that stops while its successor registers.

    It repeats its last calls, a few of them after the registration.
    """

    def __init__(self) -> None:
        self.registered = threading.Event()

    def start_successor(self) -> manager.Registered:
        outcome = start("new")
        self.registered.set()
        return outcome

    def report(self) -> Counter[str]:
        beat = Heartbeat(**OLD, status="OUT_OF_SERVICE")
        return self.repeat(lambda: manager.heartbeat([beat], OWNER)[0])

    def deregister(self) -> Counter[str]:
        return self.repeat(lambda: manager.deregister([Deregistration(**OLD)], OWNER)[0])

    def repeat(self, call: Callable[[], object]) -> Counter[str]:
        outcomes: Counter[str] = Counter()
        afterwards = 0
        while afterwards < CALLS_AFTERWARDS:
            afterwards += self.registered.is_set()
            outcomes[type(call()).__name__] += 1
        return outcomes


def start(incarnation: str) -> manager.Registered:
    (outcome,) = manager.register([Registration(**registration(incarnation=incarnation))], OWNER)
    assert isinstance(outcome, manager.Registered)
    return outcome


def fault_of(registered: manager.Registered) -> str | None:
    """Return what is wrong with the list once the new process has registered, or None."""
    row = Instance.objects.select_related("lease").first()
    if row is None:
        return "the old process removed the new one"
    found = row.reported_status, row.lease.incarnation, row.lease.epoch
    if found != ("UP", "new", registered.document["epoch"]):
        return f"the old process changed the new one: {found}"
    last = Change.objects.filter(instance_id="web-1").latest("id").instance
    return None if last and last["epoch"] == row.lease.epoch and last["status"] == "UP" else f"the log ends with {last}"


@pytest.mark.parametrize("calls", [("report",), ("deregister",), ("report", "deregister")], ids="+".join)
def test_calls_of_the_old_process_never_reach_the_new_one(calls: tuple[str, ...]) -> None:
    outcomes, faults = Counter[str](), Counter[str]()
    for _ in range(TRIALS):
        start("old")
        trial = Restart()
        registered, *counted = run_concurrently([trial.start_successor, *(getattr(trial, call) for call in calls)])
        outcomes += sum(counted, Counter[str]())
        if fault := fault_of(registered):
            faults[fault] += 1
        manager.deregister([Deregistration(**KEY)], OWNER)
    print(f"\n{faults.total()} wrong beside {TRIALS} restarts; the old process: {dict(outcomes)}")
    assert faults == {}
    assert outcomes["LeaseSuperseded"] >= TRIALS * CALLS_AFTERWARDS * len(calls)


def test_two_processes_that_register_in_turns_have_one_epoch_each() -> None:
    """Each registration of the other begins an epoch. The last one is current, and the other is superseded."""
    for _ in range(TRIALS):
        one, other = run_concurrently([partial(start, "one"), partial(start, "other")])
        epochs = {one.document["epoch"]: "one", other.document["epoch"]: "other"}
        assert len(epochs) == 2
        current = epochs.pop(max(epochs))
        (former,) = epochs.values()
        beats = [manager.heartbeat([Heartbeat(**KEY, incarnation=name)], OWNER)[0] for name in (current, former)]
        assert [type(outcome) for outcome in beats] == [manager.Renewed, LeaseSuperseded]
