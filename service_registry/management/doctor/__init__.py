"""The checks of `manage.py doctor`, in the order in which they run.

Each is a function that returns one finding.
"""

from collections.abc import Iterator

from service_registry.management.doctor import database, dead_rows, dependencies, registry
from service_registry.management.doctor.finding import Finding, warn

OUTSIDE_THE_DATABASE = {
    "settings": dependencies.check_settings,
    "keys": dependencies.check_keys,
    "broker": dependencies.check_broker,
}
IN_THE_DATABASE = {
    "version": database.check_version,
    "durability": database.check_durability,
    "migrations": database.check_migrations,
    "role": database.check_role,
    "clock": database.check_clock,
    "connections": database.check_connections,
    "transactions": dead_rows.check_transactions,
    "slots": dead_rows.check_slots,
    "vacuum": dead_rows.check_lease_table,
    "stored keys": registry.check_stored_keys,
    "observation": registry.check_observation,
    "sweep": registry.check_sweep,
    "suspension": registry.check_suspension,
    "protection": registry.check_protection,
    "checkers": registry.check_checkers,
    "permanent": registry.check_permanent_instances,
    "empty": registry.check_empty_services,
}


def run_checks() -> Iterator[tuple[str, Finding]]:
    """Yield the name and the finding of each check.

    Nothing is changed, and every wait has a limit.
    """
    for name, check in OUTSIDE_THE_DATABASE.items():
        yield name, check()
    reachable = database.check_reachable()
    yield "database", reachable
    for name, check in IN_THE_DATABASE.items():
        yield name, database.run_bounded(check) if reachable.level != "fail" else warn("the database is not reachable")


__all__ = ["IN_THE_DATABASE", "OUTSIDE_THE_DATABASE", "Finding", "run_checks"]
