"""Shortened times of the fault tests, and the number of trials."""

import os

# Instead of the default of 30 s; sweeps run at half of their interval. It cannot be shorter: a gap in the observation
# counts from 5 s on, which are not shortened, and a client's interval and one repeat must bridge those.
TTL_SECONDS = 10
SCALE = 30 / TTL_SECONDS
SWEEP_SECONDS = 1
# The contract of leases: 10 % and at least a second, and the time until a sweep.
GRACE_SECONDS = max(0.1 * TTL_SECONDS, 1)
SWEPT_WITHIN_SECONDS = 5
OFF_THE_LIST_SECONDS = TTL_SECONDS + GRACE_SECONDS + SWEPT_WITHIN_SECONDS

PROTECTION_SECONDS = round(900 / SCALE)
SERVICE_PROTECTION_SECONDS = round(120 / SCALE)
SILENCE_SECONDS = round(3600 / SCALE)

SHORT = os.environ.get("FAULTS_SHORT") == "1"


def count_trials(full: int, short: int) -> int:
    """Return the number of trials; `make check` runs the short form."""
    return short if SHORT else full


def choose_seconds(full: float, short: float) -> float:
    return short if SHORT else full
