"""A checker that is cut off: when the failures of its checks count for nothing."""

from service_registry.health.due import DueCheck
from service_registry.health.failure_share import FailureShare
from service_registry.health.record import CheckRun
from service_registry.health.result import Cause, Result


def run(pk: int, *, fails: bool, interval: int = 10, critical: bool = False) -> CheckRun:
    due = DueCheck(
        *(pk, "default", "web", str(pk), ("team",), "10.0.0.1", 80, "http", {"interval_seconds": interval}),
        *(1, critical, False, False, 0.0, 0.0),
    )
    return CheckRun(due, Result(Cause.REFUSED if fails else Cause.OK), 0.01)


def test_more_than_half_cut_a_checker_off_until_they_pass() -> None:
    share = FailureShare()
    share.note([run(pk, fails=pk < 5) for pk in range(10)], 0)
    assert not share.cut_off
    share.note([run(5, fails=True)], 1)
    assert share.cut_off
    assert not share.counts(run(5, fails=True))
    assert share.counts(run(6, fails=False))
    share.note([run(5, fails=False)], 2)
    assert share.counts(run(0, fails=True))


def test_few_failures_are_those_of_the_targets() -> None:
    share = FailureShare()
    share.note([run(pk, fails=True) for pk in range(4)], 0)
    assert not share.cut_off


def test_critical_instances_do_not_count() -> None:
    share = FailureShare()
    share.note([run(pk, fails=True, critical=pk < 90) for pk in range(94)], 0)
    assert not share.cut_off


def test_results_are_forgotten_after_their_interval() -> None:
    share = FailureShare()
    share.note([run(pk, fails=False) for pk in range(10)], 0)
    share.note([run(pk, fails=True) for pk in range(20, 26)], 11.9)
    assert not share.cut_off
    share.note([], 12.1)
    assert share.cut_off


def test_short_intervals_are_cut_off_while_long_ones_have_not_failed_yet() -> None:
    """Ten checks a second and a thousand a minute: within a second few of the thousand have failed."""
    share = FailureShare()
    share.note([run(pk, fails=False, interval=60) for pk in range(100, 1100)], 0)
    cut_at = 30
    share.note([run(pk, fails=True, interval=1) for pk in range(10)], cut_at)
    share.note([run(pk, fails=True, interval=60) for pk in range(100, 117)], cut_at + 1)
    assert not share.counts(run(0, fails=True, interval=1))
    assert share.counts(run(100, fails=True, interval=60))


def test_failures_of_short_intervals_do_not_keep_long_ones_from_counting() -> None:
    share = FailureShare()
    share.note([run(pk, fails=False, interval=60) for pk in range(100, 200)], 0)
    for second in range(1, 31):
        share.note([run(pk, fails=True, interval=1) for pk in range(10)], second)
    assert share.counts(run(100, fails=True, interval=60))
