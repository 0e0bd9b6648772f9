"""Check all the time that instances which send heartbeats are on the list, and that none of them expires."""

import http.client
import itertools
import threading
from collections import Counter
from dataclasses import dataclass, field

import psycopg

from tests.faults.fleet import Fleet
from tests.server.registry import Caller, Registry

POLL_SECONDS = 0.25
CHANGES = "SELECT id, kind, service_name, instance_id FROM service_registry_change WHERE id > %s ORDER BY id"
ALL = "SELECT id FROM service_registry_change WHERE id > %s AND id <= %s"


@dataclass
class Checker:
    """Two threads: one reads the list over HTTP, one the change log in the database, whenever that is possible."""

    registry: Registry
    fleet: Fleet
    lists_read: int = 0
    missing: Counter[str] = field(default_factory=Counter)
    expired: Counter[str] = field(default_factory=Counter)
    protected: Counter[str] = field(default_factory=Counter)
    followed: set[int] = field(default_factory=set)
    # By port, what a process has listed so far.
    seen: dict[int, set[tuple[str, str]]] = field(default_factory=dict)
    first: int = 0
    last: int = 0

    def __post_init__(self) -> None:
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self.read_list, self.follow_log)]
        self.first = self.last = self.registry.sql("SELECT max(id) FROM service_registry_change")[0][0]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(30)

    def read_list(self) -> None:
        self.seen = {port: set() for port in self.registry.ports}
        callers = {port: Caller(port, self.fleet.bearer, timeout_seconds=5) for port in self.registry.ports}
        for port in itertools.cycle(callers):
            if self._stopped.wait(POLL_SECONDS):
                break
            expected = self.fleet.living
            listed = read_all_pages(callers[port])
            if listed is not None:
                self.lists_read += 1
                # One that was killed during the read need not be there; nor one that was registered a moment ago, which
                # another process may not list yet.
                off = expected & self.seen[port] & self.fleet.living - listed
                self.missing.update(f"{service}/{name}" for service, name in off)
                self.seen[port] |= listed
        for caller in callers.values():
            caller.connection.close()

    def follow_log(self) -> None:
        """Read the log after the last id that was read. Changes that commit later have higher ids."""
        while not self._stopped.wait(POLL_SECONDS):
            try:
                with psycopg.connect(self.registry.postgres.url, autocommit=True, connect_timeout=2) as connection:
                    while not self._stopped.wait(POLL_SECONDS / 25):
                        self.record(connection.execute(CHANGES, [self.last]).fetchall())
            except psycopg.OperationalError:
                continue

    def record(self, changes: list[tuple[int, str, str, str]]) -> None:
        for number, kind, service_name, instance_id in changes:
            self.last = number
            self.followed.add(number)
            if kind == "expired" and (service_name, instance_id) in self.fleet.living:
                self.expired[f"{service_name}/{instance_id}"] += 1
            if kind == "protected":
                self.protected[f"{service_name}/{instance_id}"] += 1

    def find_overlooked(self) -> set[int]:
        """Return changes that the log's reader has not read although it has read a later one."""
        with psycopg.connect(self.registry.postgres.url, connect_timeout=5) as connection:
            return {number for (number,) in connection.execute(ALL, [self.first, self.last])} - self.followed


def read_all_pages(caller: Caller) -> set[tuple[str, str]] | None:
    """Return the instances of all pages of the list, or None when a page cannot be read."""
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
