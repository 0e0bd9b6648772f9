"""Mistakes that are made once Django has loaded everything."""

import os
from collections.abc import Callable

from django.apps import AppConfig


class Late(AppConfig):
    name = "tests.faults.defects"
    label = "defects"

    def ready(self) -> None:
        make = MISTAKES.get(os.environ["FAULTS_DEFECT"])
        if make:
            make()


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


def without(sql: str, part: str, instead: str = "") -> str:
    """The statement with the mistake; a part that is not there any more would make none."""
    assert part in sql
    return sql.replace(part, instead)


MISTAKES: dict[str, Callable[[], None]] = {
    "select-then-update": select_then_update,
    "endless-protection": endless_protection,
    "unlocked-ids": unlocked_ids,
    "gap-window": gap_window,
}
