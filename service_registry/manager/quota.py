"""How many instances a service and an owner may have."""

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from django.conf import settings
from django.db import connection

from service_registry.exceptions import QuotaExceeded
from service_registry.manager.entry import Entry, ServiceRow
from service_registry.sql import INSTANCE, SERVICE

MAX_INSTANCES_PER_SERVICE = 10_000

# While an owner has fewer than this share of what it may have, a count of a moment ago will do.
NEAR = 0.9
COUNT_MAX_AGE_SECONDS = 5.0
OWNERS_KEPT = 10_000

COUNT_OF_SERVICES = f"""
SELECT s.id, (SELECT count(*) FROM {INSTANCE} i WHERE i.service_id = s.id)
FROM {SERVICE} s WHERE s.id = ANY (%s::bigint[])
"""
COUNT_OF_OWNERS = f"""
-- Service by service, each from the index: a join would read the whole table.
SELECT owner.name, (
    SELECT COALESCE(sum(held.instances), 0)::bigint FROM {SERVICE} s
    CROSS JOIN LATERAL (SELECT count(*) AS instances FROM {INSTANCE} i WHERE i.service_id = s.id) AS held
    WHERE s.owners @> ARRAY[owner.name])
FROM unnest(%s::text[]) AS owner(name)
"""


class OwnerCounts:
    """Instances by owner, as this process last counted them and has added to them since.

    Counting an owner reads all its services, which for each new instance would cost more than registering it. Threads
    share the entries without a lock: the worst is a count that misses what another thread has just added, as it misses
    what other processes add.
    """

    def __init__(self) -> None:
        self._counted: dict[str, tuple[int, float]] = {}

    def of(self, adding: Mapping[str, int]) -> dict[str, int]:
        """The count of each owner, to whom so many are about to be added; exact where it would be near the limit then,
        or was not counted in the last seconds."""
        limit, now = settings.REGISTRY_MAX_INSTANCES_PER_OWNER * NEAR, time.monotonic()
        known = {owner: self._counted[owner] for owner in adding if owner in self._counted}
        counts = {
            owner: count
            for owner, (count, counted_at) in known.items()
            if count + adding[owner] < limit and now - counted_at < COUNT_MAX_AGE_SECONDS
        }
        others = sorted(adding.keys() - counts.keys())
        return counts | (self.count(others, now) if others else {})

    def count(self, owners: list[str], now: float) -> dict[str, int]:
        with connection.cursor() as cursor:
            cursor.execute(COUNT_OF_OWNERS, [owners])
            counts = dict(cursor.fetchall())
        if len(self._counted) > OWNERS_KEPT:
            self._counted = {}
        self._counted.update({owner: (count, now) for owner, count in counts.items()})
        return counts

    def add(self, owners: Collection[str]) -> None:
        """Instances were added, an owner each."""
        for owner in owners:
            if kept := self._counted.get(owner):
                self._counted[owner] = kept[0] + 1, kept[1]


owner_counts = OwnerCounts()


def refuse_over_quota(newcomers: Sequence[Entry]) -> None:
    """Refuse the new instances for which their service, or one of its owners, has no room.

    A service's count is exact, since its row is locked. An owner's is taken over all its services and locks none of
    them, so that it can be passed by what others register for it at the same moment, and in the last seconds if it was
    further from its limit then than a tenth.
    """
    services = {entry.service_pk: entry.service for entry in newcomers if entry.service}
    adding = Counter(owner for entry in newcomers for owner in services[entry.service_pk].owners)
    counts: Counter[int | str] = Counter(owner_counts.of(adding))
    with connection.cursor() as cursor:
        cursor.execute(COUNT_OF_SERVICES, [list(services)])
        counts.update(dict(cursor.fetchall()))
    for entry in newcomers:
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
