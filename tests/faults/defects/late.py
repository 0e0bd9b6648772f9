"""Seeded defects in code that Django loads first."""

import os
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from django.apps import AppConfig


class Late(AppConfig):
    name = "tests.faults.defects"
    label = "defects"

    def ready(self) -> None:
        introduce = DEFECTS.get(os.environ["FAULTS_DEFECT"])
        if introduce:
            introduce()


def select_then_update() -> None:
    from service_registry.expiry import due_leases

    due_leases.LOCK = without(due_leases.LOCK, "FOR NO KEY UPDATE OF l SKIP LOCKED")


def endless_protection() -> None:
    from service_registry.expiry import counts, due_leases

    counts.COUNT_COHORTS = without(counts.COUNT_COHORTS, counts.IS_PROTECTED, "(l.protected_at IS NOT NULL)")
    due_leases.LOCK = without(due_leases.LOCK, counts.IS_PROTECTED, "(l.protected_at IS NOT NULL)")


def unlocked_ids() -> None:
    from service_registry.changelog import append

    append.LOCK = without(append.LOCK, "pg_advisory_xact_lock(%s), ", "%s, ")


GAP = """
UPDATE service_registry_registrystate SET window_started_at = clock_timestamp()
WHERE swept_at < clock_timestamp() - make_interval(secs => 1.5 * %s)
"""


def gap_window() -> None:
    from django.conf import settings
    from django.db import connection

    from service_registry.expiry import sweep

    run = sweep.run

    def run_after_gap(between: Callable[[], object]) -> sweep.Report:
        with connection.cursor() as cursor:
            cursor.execute(GAP, [settings.REGISTRY_SWEEP_INTERVAL_SECONDS])
        return run(between)

    sweep.run = run_after_gap


SERVES_SECONDS = 25


def failing_heartbeats() -> None:
    """Heartbeats fail once the process has served for a while."""
    module = import_module("service_registry.manager.heartbeat")
    renew_distinct, fails_at = module.renew_distinct, time.monotonic() + SERVES_SECONDS

    def renew_or_fail(*arguments: Any) -> Any:
        if time.monotonic() > fails_at:
            raise RuntimeError("a seeded defect")
        return renew_distinct(*arguments)

    module.__dict__["renew_distinct"] = renew_or_fail


def without(sql: str, part: str, instead: str = "") -> str:
    """Return the statement with a part replaced. Raises when it has no such part: there would be no defect."""
    assert part in sql
    return sql.replace(part, instead)


DEFECTS: dict[str, Callable[[], None]] = {
    "select-then-update": select_then_update,
    "endless-protection": endless_protection,
    "unlocked-ids": unlocked_ids,
    "gap-window": gap_window,
    "failing-heartbeats": failing_heartbeats,
}
