"""Looks all the while: whoever beats is on the list, and the log says of nobody who beats that it expired."""

import http.client
import threading
from collections import Counter
from dataclasses import dataclass, field

import psycopg

from tests.faults.fleet import Fleet
from tests.server.registry import Caller, Registry

LOOK_SECONDS = 0.25
CHANGES = "SELECT id, kind, service_name, instance_id FROM service_registry_change WHERE id > %s ORDER BY id"
ALL = "SELECT id FROM service_registry_change WHERE id > %s AND id <= %s"


@dataclass
class Checker:
    """Two threads: one reads the list over HTTP, one the log in the database, both while they can be read."""

    registry: Registry
    fleet: Fleet
    looks: int = 0
    missing: Counter[str] = field(default_factory=Counter)
    expired: Counter[str] = field(default_factory=Counter)
    protected: Counter[str] = field(default_factory=Counter)
    followed: set[int] = field(default_factory=set)
    first: int = 0
    last: int = 0

    def __post_init__(self) -> None:
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self.look, self.follow)]
        self.first = self.last = self.registry.sql("SELECT max(id) FROM service_registry_change")[0][0]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(30)

    def look(self) -> None:
        callers = [Caller(port, self.fleet.bearer, timeout_seconds=5) for port in self.registry.ports]
        while not self._stopped.wait(LOOK_SECONDS):
            callers.append(callers.pop(0))
            expected = self.fleet.living
            listed = listed_by(callers[-1])
            # Who was let die while we read need not be there.
            if listed is not None:
                self.looks += 1
                self.missing.update(f"{service}/{name}" for service, name in expected - listed & self.fleet.living)
        for caller in callers:
            caller.connection.close()

    def follow(self) -> None:
        """Read the log as a watcher does: after the last id that was seen. What commits later has a higher one."""
        while not self._stopped.wait(LOOK_SECONDS):
            try:
                with psycopg.connect(self.registry.postgres.url, autocommit=True, connect_timeout=2) as connection:
                    while not self._stopped.wait(LOOK_SECONDS / 25):
                        self.note(connection.execute(CHANGES, [self.last]).fetchall())
            except psycopg.OperationalError:
                continue

    def note(self, changes: list[tuple[int, str, str, str]]) -> None:
        for number, kind, service_name, instance_id in changes:
            self.last = number
            self.followed.add(number)
            if kind == "expired" and (service_name, instance_id) in self.fleet.living:
                self.expired[f"{service_name}/{instance_id}"] += 1
            if kind == "protected":
                self.protected[f"{service_name}/{instance_id}"] += 1

    def overlooked(self) -> set[int]:
        """Changes that a reader of the log has not seen although it has seen a later one."""
        with psycopg.connect(self.registry.postgres.url, connect_timeout=5) as connection:
            return {number for (number,) in connection.execute(ALL, [self.first, self.last])} - self.followed


def listed_by(caller: Caller) -> set[tuple[str, str]] | None:
    """All that is on the list, page by page, or None while it cannot be read whole."""
    listed: set[tuple[str, str]] = set()
    after: str | None = ""
    while after is not None:
        try:
            reply = caller.call("GET", f"/registry/services?limit=500{after}")
        except (OSError, http.client.HTTPException):
            return None
        if reply.status != 200:
            return None
        for service in reply.json["services"]:
            listed |= {(service["name"], instance["instance_id"]) for instance in service["instances"]}
        after = f"&after={reply.json['next']}" if reply.json["next"] else None
    return listed
