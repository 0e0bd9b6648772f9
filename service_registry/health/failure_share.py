"""Tell a checker that is cut off from targets that fail: too many fail at once."""

from dataclasses import dataclass, field

from service_registry.choices import Health
from service_registry.health.record import CheckRun

# With fewer failures it is the targets: one of two instances fails often enough.
MINIMUM_FAILURES = 5


@dataclass(slots=True)
class FailureShare:
    """The latest result of each instance that was not critical before, for as long as its interval.

    More than half of them fail within one interval only where the checker's own network fails. Its results say nothing
    then. Instances that are critical already do not count, so that a fleet of which most is down is still judged.
    """

    latest: dict[int, tuple[float, bool]] = field(default_factory=dict)
    cut_off: bool = False

    def note(self, runs: list[CheckRun], now: float) -> bool:
        """Note results, and return whether this checker is cut off.

        Args:
            now: monotonic time, in seconds.
        """
        for run in runs:
            if run.due.critical:
                self.latest.pop(run.due.instance_pk, None)
            else:
                failed = run.result.level is Health.CRITICAL
                # The next result comes within an interval and the tenth by which it varies.
                self.latest[run.due.instance_pk] = now + 1.1 * run.due.check["interval_seconds"] + 1, failed
        self.latest = {pk: entry for pk, entry in self.latest.items() if entry[0] >= now}
        failures = sum(failed for _, failed in self.latest.values())
        self.cut_off = failures >= MINIMUM_FAILURES and failures > len(self.latest) / 2
        return self.cut_off
