"""Observation window: nothing expires while the registry can receive no heartbeat.

Every web process pulses once a second while it is able to serve. The observation window is the time for which some
process has pulsed without a gap; a deadline never lies less than 1.1 TTL after its start. So a lease's time without a
heartbeat counts only while the registry can receive one. For a fleet that sends none, see `fleet_suspension.py`.
"""

import logging
import os
import threading
import time
from dataclasses import dataclass
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connection, connections

from service_registry import metrics
from service_registry.sql import STATE

logger = logging.getLogger(__name__)

OBSERVATION_GAP_SECONDS = 5
CLOCKS_DISAGREE_SECONDS = 2.0
CLOCK_IS_WRONG_SECONDS = 10.0

# Reads `r`, the registry's state. A clock that has been set back restarts the window with the next pulse. Until then
# heartbeats may be dated in the future, and decide about no lease.
IS_OBSERVED = f"""r.id = 1 AND r.observed_at > statement_timestamp() - interval '{OBSERVATION_GAP_SECONDS} seconds'
    AND r.observed_at < statement_timestamp() + interval '{OBSERVATION_GAP_SECONDS} seconds'"""
# Leases expire, and are purged, while heartbeats can be received and expiry is not suspended.
EXPIRY_RUNS = f"{IS_OBSERVED} AND (r.suspended_until IS NULL OR r.suspended_until <= statement_timestamp())"

CREATE_STATE = f"INSERT INTO {STATE} (id, window_reason) VALUES (1, 'start') ON CONFLICT (id) DO NOTHING"


def create_state(using: str = DEFAULT_DB_ALIAS) -> None:
    """Create the one row of the registry's state where it is missing."""
    with connections[using].cursor() as cursor:
        cursor.execute(CREATE_STATE)


READ_CLOCK = f"""
SELECT extract(epoch FROM clock_timestamp())::float8, extract(epoch FROM clock_timestamp() - swept_at)::float8
FROM {STATE} WHERE id = 1
"""

RECORD_PULSE = """
-- Locks the state's row. Of two processes that pulse at once the second finds it fresh and writes nothing.
UPDATE {state}
SET observed_at = clock_timestamp(),
    window_started_at = CASE WHEN {gap} OR %(jumped)s THEN clock_timestamp() ELSE window_started_at END,
    window_reason = CASE WHEN %(jumped)s THEN 'clock' WHEN {gap} THEN 'gap' ELSE window_reason END
WHERE id = 1
    AND (%(jumped)s OR observed_at NOT BETWEEN clock_timestamp() - interval '1 second' AND clock_timestamp())
-- Returns the reason for a restart of the window.
RETURNING CASE WHEN window_started_at >= statement_timestamp() THEN window_reason END
""".format(
    state=STATE,
    gap=f"observed_at < clock_timestamp() - interval '{OBSERVATION_GAP_SECONDS} seconds'"
    " OR observed_at > clock_timestamp()",
)


@dataclass(frozen=True, slots=True)
class ClockReading:
    """The database's clock between two readings of the monotonic clock, in seconds."""

    before: float
    database: float
    after: float
    wall: float
    last_sweep_age: float

    def disagrees_with(self, earlier: "ClockReading") -> bool:
        """Return whether one of the clocks has jumped since `earlier`.

        How long the readings took does not matter.
        """
        passed = self.database - earlier.database
        shortest, longest = self.before - earlier.after, self.after - earlier.before
        return not shortest - CLOCKS_DISAGREE_SECONDS <= passed <= longest + CLOCKS_DISAGREE_SECONDS

    @property
    def wall_is_wrong(self) -> bool:
        return abs(self.wall - self.database) > CLOCK_IS_WRONG_SECONDS


class Pulse:
    """The pulse of one web process.

    A process whose `clock_is_wrong` must not serve: its token checks are wrong.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.clock_is_wrong = False
        self._earlier: ClockReading | None = None
        self._lock = threading.Lock()

    def record(self) -> float | None:
        """Record that this process can receive heartbeats.

        1. Take this process's lock: the pulse and the sweep that it runs would each take the other's reading for its
           own earlier one, and see a jump between them.
        2. Read the database's clock beside this process's clocks, to distinguish a jump of either from a slow response.
        3. In one statement, move `observed_at`, and restart the window after a gap or a jump. Two processes that pulse
           at once meet at the row: the second decides by what the first wrote, so that only one restarts the window. A
           sweep that is running reads the new window with its next page.

        Returns:
            The age of the last finished sweep in seconds, or None when this process's wall clock is wrong: then it
            recorded nothing.
        """
        with self._lock:
            reading = read_clocks()
            self.clock_is_wrong = reading.wall_is_wrong
            if self.clock_is_wrong:
                logger.error("This process's clock is %.0f s off the database's.", reading.wall - reading.database)
                return None
            jumped = self._earlier is not None and reading.disagrees_with(self._earlier)
            with connection.cursor() as cursor:
                cursor.execute(RECORD_PULSE, {"jumped": jumped})
                for (restart_reason,) in cursor.fetchall():
                    metrics.count_window_restart(restart_reason)
            self._earlier = reading
            return reading.last_sweep_age


def read_clocks() -> ClockReading:
    with connection.cursor() as cursor:
        before = time.monotonic()
        cursor.execute(READ_CLOCK)
        row: Any = cursor.fetchone()
        return ClockReading(before, row[0], time.monotonic(), time.time(), row[1])


_pulse = Pulse()


def process_pulse() -> Pulse:
    """Return the pulse of this process. A forked child gets its own."""
    global _pulse  # noqa: PLW0603
    if _pulse.pid != os.getpid():
        _pulse = Pulse()
    return _pulse
