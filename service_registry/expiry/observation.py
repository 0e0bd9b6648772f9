"""Hearing: the registry's own knowledge of whether heartbeats could reach it. Silence counts only while it hears."""

import logging
import os
import random
import threading
import time
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connection, connections

from service_registry import metrics
from service_registry.expiry import sweep
from service_registry.sql import STATE

logger = logging.getLogger(__name__)

OBSERVATION_GAP_SECONDS = 5
CLOCKS_DISAGREE_SECONDS = 2.0
CLOCK_IS_WRONG_SECONDS = 10.0
# With the sweep's own interval, the random second of `pulse` and the second between two pulses this stays under the
# 5 s within which the dead are off the list, also when no worker runs: 4.1 s, measured. With 2.0 it was 5.1 s.
SWEEP_IS_LATE_SECONDS = 1.0

PROVIDE = f"INSERT INTO {STATE} (id, window_reason) VALUES (1, 'start') ON CONFLICT (id) DO NOTHING"


def provide_state(using: str = DEFAULT_DB_ALIAS) -> None:
    """Make the state's one row where it is missing."""
    with connections[using].cursor() as cursor:
        cursor.execute(PROVIDE)


READ = f"""
SELECT extract(epoch FROM clock_timestamp())::float8, extract(epoch FROM clock_timestamp() - swept_at)::float8
FROM {STATE} WHERE id = 1
"""

HEAR = f"""
-- Locks the state's row. Of two processes that pulse at once the second finds it fresh and writes nothing.
UPDATE {STATE}
SET observed_at = clock_timestamp(),
    window_started_at = CASE WHEN {{deaf}} OR %(jumped)s THEN clock_timestamp() ELSE window_started_at END,
    window_reason = CASE WHEN %(jumped)s THEN 'clock' WHEN {{deaf}} THEN 'gap' ELSE window_reason END
WHERE id = 1 AND (%(jumped)s OR observed_at NOT BETWEEN clock_timestamp() - interval '1 second' AND clock_timestamp())
-- Returns the reason for a restart of the window.
RETURNING CASE WHEN window_started_at >= statement_timestamp() THEN window_reason END
""".format(
    deaf=f"observed_at < clock_timestamp() - interval '{OBSERVATION_GAP_SECONDS} seconds'"
    " OR observed_at > clock_timestamp()"
)


@dataclass(frozen=True, slots=True)
class Reading:
    """The database's clock between two readings of this process's monotonic one, all in seconds."""

    before: float
    database: float
    after: float
    wall: float
    swept_seconds_ago: float

    def disagrees_with(self, earlier: "Reading") -> bool:
        """Whether one of the clocks jumped since `earlier`, however long the readings themselves took."""
        passed = self.database - earlier.database
        shortest, longest = self.before - earlier.after, self.after - earlier.before
        return not shortest - CLOCKS_DISAGREE_SECONDS <= passed <= longest + CLOCKS_DISAGREE_SECONDS

    @property
    def wall_is_wrong(self) -> bool:
        return abs(self.wall - self.database) > CLOCK_IS_WRONG_SECONDS


class Pulse:
    """One web process's pulse. `clock_is_wrong` while its wall clock is far off the database's: it must not serve."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.clock_is_wrong = False
        self._earlier: Reading | None = None
        self._lock = threading.Lock()

    def beat(self) -> float | None:
        """Say that this process can hear, and return how long ago the last sweep finished, in seconds; None when the
        wall clock is wrong, and the process therefore deaf.

        1. Take this process's lock: the pulse and the sweep it runs would each take the other's reading for its own
           earlier one, and see a jump between them.
        2. Read the database's clock beside our own two, to tell a jump of either from a slow answer.
        3. In one statement, move `observed_at`, and restart the window when nobody could hear or a clock jumped. Two
           processes that pulse at once meet at the row: the second judges by what the first wrote, so that only one
           restarts the window. A sweep under way reads it with its next page.
        """
        with self._lock:
            reading = read()
            self.clock_is_wrong = reading.wall_is_wrong
            if self.clock_is_wrong:
                logger.error("wall clock is %.0f s off the database's", reading.wall - reading.database)
                return None
            jumped = self._earlier is not None and reading.disagrees_with(self._earlier)
            with connection.cursor() as cursor:
                cursor.execute(HEAR, {"jumped": jumped})
                for (restarted_for,) in cursor.fetchall():
                    metrics.count_window_restart(restarted_for)
            self._earlier = reading
            return reading.swept_seconds_ago


def read() -> Reading:
    with connection.cursor() as cursor:
        before = time.monotonic()
        cursor.execute(READ)
        row: Any = cursor.fetchone()
        return Reading(before, row[0], time.monotonic(), time.time(), row[1])


_pulse = Pulse()


def this_process() -> Pulse:
    """The pulse of this process; a forked child has its own."""
    global _pulse  # noqa: PLW0603
    if _pulse.pid != os.getpid():
        _pulse = Pulse()
    return _pulse


def pulse() -> None:
    """What a web process does every second: say that it hears, and sweep when nobody else does.

    Neither a broker nor beat is needed for expiry: a sweep that is late is done by any web process, a random moment
    later so that not all begin at once.
    """
    swept_seconds_ago = this_process().beat()
    if swept_seconds_ago is None:
        return
    late = settings.REGISTRY_SWEEP_INTERVAL_SECONDS + SWEEP_IS_LATE_SECONDS + random.uniform(0, 1)  # noqa: S311
    # A time to come is that of a clock that has been set back since.
    if not 0 <= swept_seconds_ago <= late:
        sweep.sweep(between=this_process().beat)
