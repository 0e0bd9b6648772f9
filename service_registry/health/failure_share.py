"""Tell a checker that is cut off from targets that fail: too many fail at once."""

from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import accumulate

from service_registry.choices import Health
from service_registry.health.record import CheckRun

# With fewer failures it is the targets: one of two instances fails often enough.
MINIMUM_FAILURES = 5


@dataclass(slots=True)
class FailureShare:
    """The latest result of each instance that was not critical before, for as long as its interval.

    More than half of them fail within one interval only where the checker's own network fails. Its failures say nothing
    then. Each length of interval is judged by the results of that time alone: those of long intervals come too late to
    show that the short ones fail with all others. Instances that are critical already do not count, so that a fleet of
    which most is down is still judged.

    Attributes:
        latest: the monotonic time in seconds, the window, and whether the check failed, by primary key.
        cut_off_windows: those in which too many fail.
    """

    latest: dict[int, tuple[float, float, bool]] = field(default_factory=dict)
    cut_off_windows: set[float] = field(default_factory=set)

    def note(self, runs: list[CheckRun], now: float) -> None:
        """Note results.

        Args:
            now: monotonic time, in seconds.
        """
        for run in runs:
            if run.due.critical:
                self.latest.pop(run.due.instance_pk, None)
            else:
                self.latest[run.due.instance_pk] = now, window_of(run), run.result.level is Health.CRITICAL
        self.latest = {pk: entry for pk, entry in self.latest.items() if entry[0] + entry[1] >= now}
        results = sorted((at, failed) for at, _, failed in self.latest.values())
        times = [at for at, _ in results]
        failures = [0, *accumulate(failed for _, failed in results)]
        self.cut_off_windows = set()
        for window in {window for _, window, _ in self.latest.values()}:
            first = bisect_left(times, now - window)
            failed = failures[-1] - failures[first]
            if failed >= MINIMUM_FAILURES and failed > (len(times) - first) / 2:
                self.cut_off_windows.add(window)

    @property
    def cut_off(self) -> bool:
        return bool(self.cut_off_windows)

    def counts(self, run: CheckRun) -> bool:
        """Return whether a result counts: a failure does not while the checker is cut off."""
        return run.result.level is not Health.CRITICAL or window_of(run) not in self.cut_off_windows


def window_of(run: CheckRun) -> float:
    """Return the seconds in which the next result comes: an interval, and the time of a check."""
    return float(run.due.check["interval_seconds"] + 2)
