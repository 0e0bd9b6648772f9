"""How time is shortened here, and how often each fault is tried."""

import os

# 10 s stand for the default of 30 s, and sweeps come at half of their interval. No shorter: that nobody hears is told
# after 5 s, which are not shortened, and a client with its interval and one repeat must come through those.
TTL_SECONDS = 10
SCALE = 30 / TTL_SECONDS
SWEEP_SECONDS = 1
# By the contract of leases: 10 % and at least a second, and what the sweep may take to come.
GRACE_SECONDS = max(0.1 * TTL_SECONDS, 1)
SWEPT_WITHIN_SECONDS = 5
OFF_THE_LIST_SECONDS = TTL_SECONDS + GRACE_SECONDS + SWEPT_WITHIN_SECONDS

HOLD_SECONDS = round(900 / SCALE)
SHORT_HOLD_SECONDS = round(120 / SCALE)
SILENCE_SECONDS = round(3600 / SCALE)

SHORT = os.environ.get("FAULTS_SHORT") == "1"


def trials(full: int, short: int) -> int:
    """How often to try: the short form is what `make check` runs."""
    return short if SHORT else full


def seconds(full: float, short: float) -> float:
    return short if SHORT else full
