"""Sweep: run the transactions that expire, protect and purge, in small batches.

`lease_decisions` expires or protects the due leases, `purge` deletes expired rows, and `timers` ends overrides and
delayed statuses. Leases expire only in a sweep.
"""

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from django.conf import settings
from django.db import connection

from service_registry import logs
from service_registry.database.transactions import write_transaction
from service_registry.expiry import purge, timers
from service_registry.expiry.counts import count_fleet
from service_registry.expiry.evidence import ACTOR
from service_registry.expiry.lease_decisions import (
    LeaseDecisions,
    apply_suspension,
    build_protection,
    store_exceeded_limits,
)
from service_registry.sql import STATE

logger = logging.getLogger(__name__)

SWEEP_LOCK = 0x5E41_0002
ROWS_PER_TRANSACTION = 500
# A dead instance must be off the list 5 s after its deadline, also when no worker runs. To this second come the sweep's
# own interval, the random second below and the second between two pulses: 4.1 s, measured. With 2.0 it was 5.1 s.
SWEEP_IS_LATE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Report:
    """The counts of one sweep.

    `finished` is False when another sweep was running, and did the work instead.
    """

    finished: bool
    expired: int = 0
    protected: int = 0
    purged: int = 0
    overrides_ended: int = 0
    statuses_applied: int = 0


def do_nothing() -> None:
    """Do nothing between two transactions of a sweep."""


def sweep(between: Callable[[], object] = do_nothing) -> Report:
    """Sweep once, in transactions of at most 500 rows, until nothing is due.

    Any number of sweeps may run at once, in any process: each transaction takes the sweep's lock or gives up. When a
    process is frozen in the middle of a transaction, PostgreSQL ends it (`idle_in_transaction_session_timeout`) and
    rolls the transaction back.

    Args:
        between: called after each transaction. A web process passes its pulse, so that a long sweep is no
            gap in the observation window.
    """
    began = time.perf_counter()
    report = run(between)
    log_report(report, time.perf_counter() - began)
    return report


def sweep_if_late(last_sweep_age: float, between: Callable[[], object]) -> None:
    """Sweep when no other process does: expiry needs neither a broker nor Celery beat.

    A late sweep is done by any web process, a random moment later so that they do not all start at once.

    Args:
        last_sweep_age: seconds since a sweep last finished.
        between: see `sweep`.
    """
    late = settings.REGISTRY_SWEEP_INTERVAL_SECONDS + SWEEP_IS_LATE_SECONDS + random.uniform(0, 1)  # noqa: S311
    # An age below zero is that of a clock that has been set back since.
    if not 0 <= last_sweep_age <= late:
        sweep(between)


class SweepInProgress(Exception):
    """Another sweep has the lock."""


def run(between: Callable[[], object]) -> Report:
    try:
        overrides_ended = repeat(timers.end_overrides, between)
        statuses_applied = repeat(timers.apply_delayed_statuses, between)
        decisions = decide_due_leases(between)
        purged = repeat(purge.purge_expired, between)
    except SweepInProgress:
        return Report(finished=False)
    record_finished()
    expired, protected = (decisions.expired, decisions.protected) if decisions else (0, 0)
    return Report(True, expired, protected, purged, overrides_ended, statuses_applied)


def log_report(report: Report, seconds: float) -> None:
    """Log a sweep that changed something."""
    outcomes = {name: count for name, count in asdict(report).items() if count and name != "finished"}
    if outcomes:
        fields = {"actor": ACTOR, "outcomes": outcomes, "duration_ms": round(seconds * 1000, 3)}
        logs.log_event(logger, logging.INFO, "sweep", fields)


@contextmanager
def sweep_transaction() -> Iterator[None]:
    """Open one of the sweep's transactions. Raises SweepInProgress."""
    with write_transaction(lock_timeout="1s"):
        if not take_sweep_lock():
            raise SweepInProgress
        yield


def repeat(step: Callable[[int], int], between: Callable[[], object]) -> int:
    """Run `step` in transactions until it finds fewer rows than it may take.

    Raises SweepInProgress.
    """
    total, full = 0, True
    while full:
        with sweep_transaction():
            count = step(ROWS_PER_TRANSACTION)
        between()
        total += count
        full = count == ROWS_PER_TRANSACTION
    return total


def decide_due_leases(between: Callable[[], object]) -> LeaseDecisions | None:
    """Expire or protect all due leases; return None when expiry does not run.

    Raises SweepInProgress.

    1. Count the fleet. When a suspension has just ended, the observation window has restarted: then count anew.
    2. Decide page by page by that count. A page finds only leases that are still due, and none once the count is old or
       expiry does not run any more, whichever process noticed.
    """
    with sweep_transaction():
        fleet = count_fleet()
        suspension = apply_suspension(fleet) if fleet.is_observed else fleet.suspension
        if suspension != fleet.suspension:
            fleet = count_fleet()
        decisions = None
        if fleet.is_observed and not suspension.is_active(fleet.now):
            decisions = LeaseDecisions(fleet, build_protection(fleet))
            store_exceeded_limits(fleet, decisions.protection)
    between()
    if decisions and fleet.needs_decisions:
        repeat(decisions.apply_page, between)
    return decisions


def take_sweep_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [SWEEP_LOCK])
        (taken,) = cursor.fetchone()
    return bool(taken)


def record_finished() -> None:
    with write_transaction(lock_timeout="1s"), connection.cursor() as cursor:
        cursor.execute(f"UPDATE {STATE} SET swept_at = clock_timestamp() WHERE id = 1")
