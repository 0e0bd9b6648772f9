"""The sweep: the one place where silence takes an instance off the list, and where what is over ends."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from django.db import connection

from service_registry import logs
from service_registry.database.transactions import write_transaction
from service_registry.expiry import apply, counts, purge, silence, timers
from service_registry.expiry.apply import Judging
from service_registry.expiry.evidence import ACTOR
from service_registry.sql import STATE

logger = logging.getLogger(__name__)

SWEEP_LOCK = 0x5E41_0002
ROWS_A_TRANSACTION = 500


@dataclass(frozen=True, slots=True)
class Report:
    """What one sweep did. `finished` is False when another sweep was under way, and did it instead."""

    finished: bool
    expired: int = 0
    protected: int = 0
    purged: int = 0
    overrides_ended: int = 0
    statuses_settled: int = 0


def nothing() -> None:
    """What most sweeps do between their transactions."""


def sweep(between: Callable[[], object] = nothing) -> Report:
    """Sweep once: transactions of at most 500 rows each until nothing is due.

    `between` is called after each: a web process must not grow deaf, and so restart the window, over its own sweep.

    Any number may run at once, in any process: each transaction takes the sweep's lock or leaves. A process frozen in
    the middle of one is ended by PostgreSQL (`idle_in_transaction_session_timeout`) and its transaction undone.
    """
    began = time.perf_counter()
    report = run(between)
    tell(report, time.perf_counter() - began)
    return report


class UnderWay(Exception):
    """Another sweep has the lock."""


def run(between: Callable[[], object]) -> Report:
    try:
        ended = repeat(timers.end_overrides, between)
        settled = repeat(timers.settle_statuses, between)
        judged = count_and_judge(between)
        removed = repeat(purge.remove, between)
    except UnderWay:
        return Report(finished=False)
    note_finished()
    expired, protected = (judged.expired, judged.protected) if judged else (0, 0)
    return Report(True, expired, protected, removed, ended, settled)


def tell(report: Report, seconds: float) -> None:
    """Log a sweep that did something."""
    outcomes = {name: count for name, count in asdict(report).items() if count and name != "finished"}
    if outcomes:
        fields = {"actor": ACTOR, "outcomes": outcomes, "duration_ms": round(seconds * 1000, 3)}
        logs.log_event(logger, logging.INFO, "sweep", fields)


@contextmanager
def turn() -> Iterator[None]:
    """One of the sweep's transactions. Raises UnderWay."""
    with write_transaction(lock_timeout="1s"):
        if not take_lock():
            raise UnderWay
        yield


def repeat(step: Callable[[int], int], between: Callable[[], object]) -> int:
    """Run `step` in transactions of its own until it finds fewer rows than it may take. Raises UnderWay."""
    total, full = 0, True
    while full:
        with turn():
            count = step(ROWS_A_TRANSACTION)
        between()
        total += count
        full = count == ROWS_A_TRANSACTION
    return total


def count_and_judge(between: Callable[[], object]) -> Judging | None:
    """Judge all that are due, if time passes. Raises UnderWay.

    1. Count the fleet. A silence that has just ended has restarted the window: then count anew.
    2. Judge page by page by that count. A page finds only those who are still due, and nobody once the count is old
       or time stands still, whoever noticed.
    """
    with turn():
        counted = counts.take()
        standing = silence.settle(counted) if counted.hears else counted.silence
        if standing != counted.silence:
            counted = counts.take()
        stands_still = not counted.hears or standing.stands_still(counted.now)
        judged = None if stands_still else Judging(counted, apply.judgement(counted))
        if judged:
            apply.keep_crowds(judged)
    between()
    if judged and counted.asks_for_judgement:
        repeat(lambda at_most: apply.judge(judged, at_most), between)
    return judged


def take_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [SWEEP_LOCK])
        (taken,) = cursor.fetchone()
    return bool(taken)


def note_finished() -> None:
    with write_transaction(lock_timeout="1s"), connection.cursor() as cursor:
        cursor.execute(f"UPDATE {STATE} SET swept_at = clock_timestamp() WHERE id = 1")
