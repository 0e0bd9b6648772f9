"""The checker: an asynchronous process that runs the checks that are due, and records their results.

Any number of checkers share the work through the database. One that is down, frozen or cut off changes nothing.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TypeVar

from django.db import Error, OperationalError

from service_registry import logs, metrics
from service_registry.choices import Health
from service_registry.database.outages import is_lock_timeout
from service_registry.database.transactions import prepare_thread_connection, with_retries
from service_registry.health import presence
from service_registry.health.due import DueCheck, claim_due_checks, follow_registrations
from service_registry.health.failure_share import FailureShare
from service_registry.health.own_endpoints import configured_rule
from service_registry.health.pauses import Pauses
from service_registry.health.probes import probe
from service_registry.health.probes.connection import resolver_threads
from service_registry.health.probes.probe import Target
from service_registry.health.record import CheckRun, record, renew
from service_registry.health.result import Cause

logger = logging.getLogger(__name__)

Outcome = TypeVar("Outcome")

MAX_RUNNING = 200
MAX_RUNNING_PER_HOST = 4
# How often due checks are claimed and results recorded: a check waits half of it on average. They are claimed sooner
# where a host or this process had no place for them, and has one again.
CLAIM_SECONDS = 0.2
LEAST_CLAIM_SECONDS = 0.02
RECORD_SECONDS = 0.5
FOLLOW_SECONDS = 1.0
# A failover may move the database to another address.
RULE_SECONDS = 30.0
RESULTS_PER_TRANSACTION = 500


class Checker:
    """Claims, runs and records checks until it is stopped. Belongs to one event loop.

    Attributes:
        running: how many checks run, by host.
        results: not recorded yet.
    """

    def __init__(self) -> None:
        self.rule = configured_rule()
        self.running: Counter[str] = Counter()
        self.results: list[CheckRun] = []
        self.share = FailureShare()
        self.pauses = Pauses()
        self.stopping = asyncio.Event()
        self.place_freed = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()
        # One thread, and so one connection and one transaction at a time.
        self.database = ThreadPoolExecutor(1, thread_name_prefix="health")
        # Series that appear with their first event have no increase then.
        for cause in Cause:
            metrics.health_checks.labels(cause.level, cause)

    async def run(self) -> None:
        """Run until `stop`; what runs then is recorded still."""
        self.pauses.start()
        loops = (
            *((self.follow, FOLLOW_SECONDS), (self.claim, LEAST_CLAIM_SECONDS), (self.record, RECORD_SECONDS)),
            (self.refresh_rule, RULE_SECONDS),
        )
        await asyncio.gather(*(self.repeat(step, seconds) for step, seconds in loops))
        if self.tasks:
            await asyncio.wait(self.tasks)
        self.pauses.stop()
        await self.attempt(self.record)
        await self.attempt(self.leave)

    def stop(self) -> None:
        self.stopping.set()

    async def repeat(self, step: Callable[[], Awaitable[None]], seconds: float) -> None:
        while not self.stopping.is_set():
            await self.attempt(step)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), seconds)

    async def attempt(self, step: Callable[[], Awaitable[None]]) -> None:
        """Run a step. While the database does not answer, nothing is claimed and no result kept."""
        try:
            await step()
        except Error as error:
            logs.log_event(logger, logging.WARNING, "health_database_unavailable", {"error": error})

    async def in_database(self, function: Callable[[], Outcome]) -> Outcome:
        def run() -> Outcome:
            prepare_thread_connection(check=False)
            return with_retries(function)

        return await asyncio.get_running_loop().run_in_executor(self.database, run)

    async def refresh_rule(self) -> None:
        """Add the addresses that the registry's parts have now. Earlier ones stay, also where a name has none now."""
        rule = await asyncio.get_running_loop().run_in_executor(resolver_threads, configured_rule)
        self.rule = replace(rule, own={*self.rule.own, *rule.own})

    async def follow(self) -> None:
        await self.in_database(partial(presence.report, cut_off=self.share.cut_off))
        await self.in_database(follow_registrations)

    async def claim(self) -> None:
        """Wait a moment for a free place, then claim as many due checks as may run now, and start them."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.place_freed.wait(), CLAIM_SECONDS)
        self.place_freed.clear()
        places = MAX_RUNNING - self.running.total()
        if places <= 0:
            return
        asked = time.monotonic()
        claimed = await self.in_database(partial(claim_due_checks, places, dict(self.running), MAX_RUNNING_PER_HOST))
        waited = time.monotonic() - asked
        for due in claimed:
            if not due.is_usable(waited):
                metrics.health_checks_late.inc()
            elif not due.expired or due.check["renews"]:
                metrics.health_check_delay.observe(due.delay_seconds + waited)
                self.start(due)
        metrics.health_checks_running.set(self.running.total())

    def start(self, due: DueCheck) -> None:
        self.running[due.host] += 1
        task = asyncio.create_task(self.check(due))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def check(self, due: DueCheck) -> None:
        """Run one check, and keep its result for the next record; not a failure across a pause of this process."""
        began = time.monotonic()
        target = target_of(due)
        try:
            result = await probe(target, self.rule)
        finally:
            self.free_place(due.host)
        seconds = time.monotonic() - began
        if result.level is Health.CRITICAL and self.pauses.since(began):
            metrics.health_checks_late.inc()
            return
        metrics.health_checks.labels(result.level, result.cause).inc()
        self.results.append(CheckRun(due, result, seconds))

    def free_place(self, host: str) -> None:
        if self.running[host] == MAX_RUNNING_PER_HOST or self.running.total() == MAX_RUNNING:
            self.place_freed.set()
        self.running[host] -= 1
        if not self.running[host]:
            del self.running[host]

    async def leave(self) -> None:
        await self.in_database(presence.leave)

    async def record(self) -> None:
        """Record the results so far, unless this checker is cut off."""
        runs, self.results = self.results, []
        was_cut_off = self.share.cut_off
        self.share.note(runs, time.monotonic())
        if self.share.cut_off != was_cut_off:
            event = "health_checker_cut_off" if self.share.cut_off else "health_checker_back"
            logs.log_event(logger, logging.WARNING, event, {"instances": len(self.share.latest)})
        runs = [run for run in runs if self.share.counts(run)]
        for at in range(0, len(runs), RESULTS_PER_TRANSACTION):
            await self.record_some(runs[at : at + RESULTS_PER_TRANSACTION])

    async def record_some(self, runs: list[CheckRun]) -> None:
        """Record results and renew leases, each in a transaction that may be repeated."""
        try:
            await self.in_database(partial(record, runs))
        except OperationalError as error:
            if not is_lock_timeout(error):
                raise
            await self.in_database(partial(record, runs, skip_locked=True))
        await self.in_database(partial(renew, runs))


def target_of(due: DueCheck) -> Target:
    """Return the target of a check: always the instance's own host."""
    check = due.check
    first, _, last = check["expected_status"].partition("-")
    return Target(
        check["type"],
        due.host,
        check["port"] or due.port,
        min(check["timeout_seconds"], check["interval_seconds"]),
        check["path"],
        check["headers"],
        range(int(first), int(last or first) + 1),
        check["tls_verify"],
        due.scheme == "grpcs",
    )
