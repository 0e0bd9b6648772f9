"""What the doctor looks at, in this order: each check is a function that returns one finding."""

from collections.abc import Iterator

from service_registry.management.doctor import database, fleet, surroundings
from service_registry.management.doctor.finding import Finding, warn

BESIDE_THE_DATABASE = {
    "settings": surroundings.configured,
    "keys": surroundings.keys,
    "broker": surroundings.broker,
}
IN_THE_DATABASE = {
    "version": database.version,
    "durability": database.durability,
    "migrations": database.migrations,
    "role": database.role,
    "clock": database.clock,
    "connections": database.connections,
    "stored keys": database.stored_keys,
    "observation": database.observation,
    "sweep": database.swept,
    "suspension": fleet.suspension,
    "protection": fleet.protection,
}


def examine() -> Iterator[tuple[str, Finding]]:
    """Each check's name with what it found, one after the other. Nothing is changed, and no wait is endless."""
    for name, check in BESIDE_THE_DATABASE.items():
        yield name, check()
    reached = database.reached()
    yield "database", reached
    for name, check in IN_THE_DATABASE.items():
        yield name, database.bounded(check) if reached.level != "fail" else warn("the database cannot be asked")


__all__ = ["Finding", "examine"]
