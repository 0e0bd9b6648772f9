"""Limits on the number of instances of a service and of an owner."""

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from django.conf import settings
from django.db import connection

from service_registry.exceptions import QuotaExceeded
from service_registry.manager.registration.entry import Entry, ServiceRow
from service_registry.sql import INSTANCE, SERVICE

MAX_INSTANCES_PER_SERVICE = 10_000

# An owner with fewer than this share of its limit is counted from the cache.
CACHED_BELOW = 0.9
CACHE_SECONDS = 5.0
CACHED_OWNERS = 10_000

COUNT_OF_SERVICES = f"""
SELECT s.id, (SELECT count(*) FROM {INSTANCE} i WHERE i.service_id = s.id)
FROM {SERVICE} s WHERE s.id = ANY (%s::bigint[])
"""
COUNT_OF_OWNERS = f"""
-- One subquery per service, which reads the index: a join would read the whole table.
SELECT owner.name, (
    SELECT COALESCE(sum(counted.instances), 0)::bigint FROM {SERVICE} s
    CROSS JOIN LATERAL (SELECT count(*) AS instances FROM {INSTANCE} i WHERE i.service_id = s.id) AS counted
    WHERE s.owners @> ARRAY[owner.name])
FROM unnest(%s::text[]) AS owner(name)
"""


class OwnerCounts:
    """A cache of the number of instances of each owner.

    It holds what this process counted last, and adds what it has inserted since. To count an owner reads all its
    services, which costs more than to register an instance. Threads share the cache without a lock: at worst a count
    misses what another thread has just added, as it misses what other processes add.
    """

    def __init__(self) -> None:
        self._counted: dict[str, tuple[int, float]] = {}

    def get(self, adding: Mapping[str, int]) -> dict[str, int]:
        """Return the count of each owner.

        Owners who come near their limit, and those whose count is too old, are counted in the database.

        Args:
            adding: the number of instances about to be inserted, by owner.
        """
        limit, now = settings.REGISTRY_MAX_INSTANCES_PER_OWNER * CACHED_BELOW, time.monotonic()
        known = {owner: self._counted[owner] for owner in adding if owner in self._counted}
        counts = {
            owner: count
            for owner, (count, counted_at) in known.items()
            if count + adding[owner] < limit and now - counted_at < CACHE_SECONDS
        }
        others = sorted(adding.keys() - counts.keys())
        return counts | (self.count(others, now) if others else {})

    def count(self, owners: list[str], now: float) -> dict[str, int]:
        with connection.cursor() as cursor:
            cursor.execute(COUNT_OF_OWNERS, [owners])
            counts = dict(cursor.fetchall())
        if len(self._counted) > CACHED_OWNERS:
            self._counted = {}
        self._counted.update({owner: (count, now) for owner, count in counts.items()})
        return counts

    def add(self, owners: Collection[str]) -> None:
        """Add one instance of each of these owners."""
        for owner in owners:
            if counted := self._counted.get(owner):
                self._counted[owner] = counted[0] + 1, counted[1]


owner_counts = OwnerCounts()


def refuse_over_quota(new: Sequence[Entry]) -> None:
    """Refuse new instances whose service or whose owner has reached its limit.

    The count of a service is exact, because its row is locked. The count of an owner covers all its services and locks
    none of them. So an owner can pass its limit by what is registered for it at the same moment, and by what other
    processes registered within CACHE_SECONDS while it was below CACHED_BELOW.
    """
    services = {entry.service_pk: entry.service for entry in new if entry.service}
    adding = Counter(owner for entry in new for owner in services[entry.service_pk].owners)
    counts: Counter[int | str] = Counter(owner_counts.get(adding))
    with connection.cursor() as cursor:
        cursor.execute(COUNT_OF_SERVICES, [list(services)])
        counts.update(dict(cursor.fetchall()))
    for entry in new:
        service = services[entry.service_pk]
        entry.refusal = over_quota(service, counts)
        if entry.refusal is None:
            counts.update([entry.service_pk, *service.owners])
            owner_counts.add(service.owners)


def over_quota(service: ServiceRow, counts: Counter[int | str]) -> QuotaExceeded | None:
    if counts[service.pk] >= MAX_INSTANCES_PER_SERVICE:
        return QuotaExceeded("service", MAX_INSTANCES_PER_SERVICE)
    limit = settings.REGISTRY_MAX_INSTANCES_PER_OWNER
    if any(counts[owner] >= limit for owner in service.owners):
        return QuotaExceeded("service's owner", limit)
    return None
