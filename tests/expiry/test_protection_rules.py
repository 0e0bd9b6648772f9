"""The rules of protection over plain numbers."""

import random

import pytest

from service_registry.choices import Rule
from service_registry.expiry.protection import Cohort, Due, Group, Limits, Protection
from service_registry.sql import grace_seconds

LIMITS = Limits()
SIXTY_OF_A_HUNDRED_LATE = [Cohort(30, 100, 60, 0, 0.0)]


def count_by_definition(groups: list[Group], ttl_seconds: int, live: int) -> float:
    """Count the fleet as the rule is documented: a service for at most half of the limit or half of its leases."""
    limit = max(LIMITS.fleet_minimum, LIMITS.fleet_fraction * live)
    total = 0.0
    for service in {group.service for group in groups}:
        own = [group for group in groups if group.service == service and group.ttl_seconds <= ttl_seconds]
        counted, size = sum(group.counted for group in own), sum(group.size for group in own)
        total += min(counted, max(limit / 2, size / 2))
    return total


def build_cohort(ttl_seconds: int, groups: list[Group]) -> Cohort:
    own = [group for group in groups if group.ttl_seconds == ttl_seconds]
    return Cohort(ttl_seconds, sum(group.size for group in own), sum(group.counted for group in own), 0, 0.0)


@pytest.mark.parametrize("seed", range(50))
def test_fleet_rule_counts_as_documented(seed: int) -> None:
    chance = random.Random(seed)
    ttls = sorted(chance.sample(range(5, 400), chance.randint(1, 8)))
    groups = []
    for service in range(chance.randint(1, 30)):
        for ttl_seconds in chance.sample(ttls, chance.randint(1, len(ttls))):
            size = chance.choice([1, 3, 10, 100, 900])
            groups.append(Group(service, ttl_seconds, size, chance.randint(0, size)))
    cohorts = [build_cohort(ttl_seconds, groups) for ttl_seconds in ttls]
    protection = Protection(0.0, cohorts, groups, {}, LIMITS)
    for group in groups:
        live = sum(cohort.live for cohort in cohorts if cohort.ttl_seconds <= group.ttl_seconds)
        due = Due(group.service, group.ttl_seconds, 1.0, proven=True)
        fleet = next(result for result in protection.evaluate(due) if result.rule.endswith("fleet"))
        assert fleet.counted == pytest.approx(count_by_definition(groups, group.ttl_seconds, live))
        assert fleet.limit == max(5, 0.15 * live)
        assert fleet.rule == ("fleet" if live >= 20 else "small_fleet")


def test_lease_that_is_in_no_count_expires() -> None:
    """It cannot be, since the count comes first; no rule protects it then."""
    assert Protection(0.0, [], [], {}, LIMITS).decide(Due(1, 30, 1.0, proven=True)).action == "expire"


@pytest.mark.parametrize(("protected_seconds", "action"), [(899.0, "keep"), (900.0, "end_protection")])
def test_restart_of_the_window_does_not_extend_protection(protected_seconds: float, action: str) -> None:
    """The same number of leases is late as before. By the new window the lease is overdue for a second only."""
    protection = Protection(0.0, SIXTY_OF_A_HUNDRED_LATE, [], {}, LIMITS)
    due = Due(1, 30, 1.0, proven=True, protected_by=Rule.FLEET, protected_seconds=protected_seconds)
    assert protection.decide(due).action == action


@pytest.mark.parametrize(("protected_seconds", "action"), [(899.0, "protect"), (900.0, "end_protection")])
def test_protection_by_the_service_rule_counts_towards_the_fleet_rule(protected_seconds: float, action: str) -> None:
    protection = Protection(0.0, SIXTY_OF_A_HUNDRED_LATE, [], {}, LIMITS)
    due = Due(1, 30, 1.0, proven=True, protected_by=Rule.SERVICE, protected_seconds=protected_seconds)
    assert protection.decide(due).action == action


@pytest.mark.parametrize(("ttl_seconds", "grace"), [(5, 6.0), (10, 11.0), (30, 33.0), (3600, 3960.0)])
def test_grace_is_a_tenth_of_the_ttl_and_at_least_a_second_more(ttl_seconds: int, grace: float) -> None:
    assert grace_seconds(ttl_seconds) == pytest.approx(grace)
