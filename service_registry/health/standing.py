"""Judge the health of an instance by results: thresholds, and damping of those that flap.

The rules use neither SQL nor a clock. Down is quick, after `unhealthy_after` failures. Up takes `healthy_after` better
results, and a minute of them where the instance flaps: it goes down again soon after it has come up.
"""

from dataclasses import dataclass, replace

from service_registry.choices import Health

# An instance flaps when it becomes worse within this time after it has become better.
FLAPPING_SECONDS = 600.0
# How long the results of one that flaps must be better before it is.
STEADY_SECONDS = 60.0

SEVERITY = {Health.PASSING: 0, Health.WARNING: 1, Health.CRITICAL: 2}


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The numbers of results in a row to become better, and of failures to become critical."""

    healthy_after: int = 2
    unhealthy_after: int = 3


@dataclass(frozen=True, slots=True)
class Standing:
    """The health of an instance between two results. Times are in seconds, by any one clock.

    Attributes:
        failures: in a row, up to now.
        better: results in a row that are better than `status`, since `better_since`.
        improved_at: when the status became better; None when it has become worse since.
    """

    status: Health = Health.UNKNOWN
    failures: int = 0
    better: int = 0
    better_since: float | None = None
    improved_at: float | None = None
    flapping: bool = False


def judge(standing: Standing, level: Health, now: float, thresholds: Thresholds) -> Standing:
    """Return the standing after a result.

    Args:
        level: of the result: passing, warning, or critical for a failure.
        now: when the result came.
    """
    failures = standing.failures + 1 if level is Health.CRITICAL else 0
    target = level
    if level is Health.CRITICAL and failures < thresholds.unhealthy_after:
        target = standing.status
    now_standing = replace(standing, failures=failures, flapping=standing.flapping and not is_steady(standing, now))
    if target is standing.status:
        return replace(now_standing, better=0, better_since=None)
    if standing.status is Health.UNKNOWN or SEVERITY[target] > SEVERITY[standing.status]:
        flapping = now_standing.flapping or came_up_lately(standing, now)
        return replace(now_standing, status=target, better=0, better_since=None, improved_at=None, flapping=flapping)
    return improve(now_standing, target, now, thresholds)


def improve(standing: Standing, target: Health, now: float, thresholds: Thresholds) -> Standing:
    """Return the standing after a result that is better than the status."""
    since = now if standing.better_since is None else standing.better_since
    better = standing.better + 1
    if better < thresholds.healthy_after or (standing.flapping and now - since < STEADY_SECONDS):
        return replace(standing, better=better, better_since=since)
    return replace(standing, status=target, better=0, better_since=None, improved_at=now)


def came_up_lately(standing: Standing, now: float) -> bool:
    return standing.improved_at is not None and now - standing.improved_at < FLAPPING_SECONDS


def is_steady(standing: Standing, now: float) -> bool:
    """Return whether the instance has stayed as well as it became, so that it flaps no more."""
    return standing.improved_at is not None and not came_up_lately(standing, now)
