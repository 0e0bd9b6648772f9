"""The rules of expiry over plain numbers."""

import random

import pytest

from service_registry.choices import Rule
from service_registry.expiry.rules import (
    Cohort,
    Counts,
    Due,
    Group,
    Judgement,
    Limits,
    Silence,
    begin_silence,
    end_silence,
    grace_seconds,
    may_be_silent,
    median_ttl,
    observe,
)

LIMITS = Limits()


def counted_by_hand(groups: list[Group], ttl_seconds: int, live: int) -> float:
    """The fleet's count as it is told: each service for at most half of the limit or half of its own leases."""
    limit = max(LIMITS.fleet_minimum, LIMITS.fleet_fraction * live)
    total = 0.0
    for service in {group.service for group in groups}:
        own = [group for group in groups if group.service == service and group.ttl_seconds <= ttl_seconds]
        counted, size = sum(group.counted for group in own), sum(group.size for group in own)
        total += min(counted, max(limit / 2, size / 2))
    return total


@pytest.mark.parametrize("seed", range(50))
def test_what_is_counted_is_what_the_rule_says(seed: int) -> None:
    chance = random.Random(seed)
    ttls = sorted(chance.sample(range(5, 400), chance.randint(1, 8)))
    groups = []
    for service in range(chance.randint(1, 30)):
        for ttl_seconds in chance.sample(ttls, chance.randint(1, len(ttls))):
            size = chance.choice([1, 3, 10, 100, 900])
            groups.append(Group(service, ttl_seconds, size, chance.randint(0, size)))
    cohorts = [of_groups(ttl_seconds, [g for g in groups if g.ttl_seconds == ttl_seconds]) for ttl_seconds in ttls]
    judgement = Judgement(0.0, cohorts, groups, {}, LIMITS)
    for group in groups:
        live = sum(cohort.live for cohort in cohorts if cohort.ttl_seconds <= group.ttl_seconds)
        due = Due(group.service, group.ttl_seconds, 1.0, proven=True)
        fleet = next(finding for finding in judgement.findings(due) if finding.rule.endswith("fleet"))
        assert fleet.counted == pytest.approx(counted_by_hand(groups, group.ttl_seconds, live))
        assert fleet.limit == max(5, 0.15 * live)
        assert fleet.rule == ("fleet" if live >= 20 else "small_fleet")


def of_groups(ttl_seconds: int, groups: list[Group]) -> Cohort:
    counted = sum(group.counted for group in groups)
    return Cohort(ttl_seconds, sum(group.size for group in groups), counted, 0, 0.0)


def test_a_lease_that_nobody_counted_is_judged_by_what_is_known() -> None:
    """It cannot be, since the census came first; then no rule holds it."""
    assert Judgement(0.0, [], [], {}, LIMITS).verdict(Due(1, 30, 1.0, proven=True)).act == "expire"


def test_a_restart_of_the_window_gives_no_time_of_a_hold_again() -> None:
    """The crowd is as large as it was; past the deadline by the new window, the lease has been held for long."""
    judgement = Judgement(0.0, [Cohort(30, 100, 60, 0, 0.0)], [], {}, LIMITS)
    for held_seconds, act in ((899.0, "held"), (900.0, "let_go")):
        due = Due(1, 30, 1.0, proven=True, held_by=Rule.FLEET, held_seconds=held_seconds)
        assert judgement.verdict(due).act == act


def test_a_hold_by_a_service_counts_towards_that_by_the_fleet() -> None:
    judgement = Judgement(0.0, [Cohort(30, 100, 60, 0, 0.0)], [], {}, LIMITS)
    for held_seconds, act in ((899.0, "hold"), (900.0, "let_go")):
        due = Due(1, 30, 1.0, proven=True, held_by=Rule.SERVICE, held_seconds=held_seconds)
        assert judgement.verdict(due).act == act


@pytest.mark.parametrize(("ttl_seconds", "grace"), [(5, 6.0), (10, 11.0), (30, 33.0), (3600, 3960.0)])
def test_grace_is_a_tenth_and_at_least_a_second(ttl_seconds: int, grace: float) -> None:
    assert grace_seconds(ttl_seconds) == pytest.approx(grace)


def test_the_median_is_that_of_leases_not_of_ttls() -> None:
    cohorts = [Cohort(5, 10, 0, 0, 0), Cohort(300, 12, 0, 0, 0), Cohort(30, 4, 0, 0, 0)]
    assert median_ttl(cohorts) == 30
    assert median_ttl([Cohort(5, 13, 0, 0, 0), Cohort(30, 12, 0, 0, 0)]) == 5


def test_a_cohort_without_anybody_live_was_not_heard_lately() -> None:
    cohorts = [Cohort(30, 20, 0, 0, 100.0), Cohort(60, 0, 0, 5, 1000.0)]
    assert may_be_silent(121.0, cohorts)
    assert not may_be_silent(119.0, cohorts)


def test_silences_in_a_row_have_no_more_than_their_time_together() -> None:
    """A fleet that is heard once every 40 s, in lockstep: never more than half of the time stands still, but for the
    hour that it may at first."""
    standing, stood_still = Silence(), 0.0
    for beaten_at in range(0, 40 * 1000, 40):
        standing = begin_silence(standing, float(beaten_at), LIMITS)
        assert standing.since is not None
        assert standing.until is not None
        stood_still += max(0.0, min(standing.until, beaten_at + 40.0) - standing.since)
        standing = end_silence(standing, beaten_at + 40.0)
    assert 3600 < stood_still <= (40 * 1000 + 3600) / 2 + 40


def test_a_silence_of_a_time_to_come_is_nothing_that_has_to_be_made_up_for() -> None:
    """The clock has been set back by a month since it began: the next silence has its whole hour."""
    month = 30 * 86400.0
    cohorts = [Cohort(30, 30, 30, 0, 75.0)]
    counts = Counts(100.0, cohorts, None)
    ended = observe(Silence(month, month + 3600), counts, lambda: 3, LIMITS)
    assert ended == Silence()
    assert observe(ended, counts, lambda: 3, LIMITS) == Silence(75.0, 75.0 + 3600)


def test_what_is_owed_for_a_month_is_not_owed() -> None:
    """A silence that ended while the clock was ahead."""
    assert begin_silence(Silence(repaid_at=30 * 86400.0), 75.0, LIMITS) == Silence(75.0, 75.0 + 3600)
    owed = begin_silence(Silence(repaid_at=75.0 + 3600), 75.0, LIMITS)
    assert owed == Silence(75.0, 75.0, repaid_at=75.0 + 3600)


def test_what_stands_still_begins_and_ends() -> None:
    silence = begin_silence(Silence(), 100.0, LIMITS)
    assert [silence.stands_still(now) for now in (99.0, 100.0, 3699.0, 3700.0)] == [False, True, True, False]
