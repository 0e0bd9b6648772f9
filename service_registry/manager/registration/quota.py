"""Limits on the number of instances of a service, and of instances and services of an owner."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from django.conf import settings

from service_registry.database.base import prepared_cursor
from service_registry.exceptions import QuotaExceeded
from service_registry.manager import owner_usage
from service_registry.manager.owner_usage import Usage
from service_registry.manager.registration.entry import Entry, ServiceRow
from service_registry.sql import INSTANCE, SERVICE

MAX_INSTANCES_PER_SERVICE = 10_000

COUNT_OF_SERVICES = f"""
SELECT s.id, (SELECT count(*) FROM {INSTANCE} i WHERE i.service_id = s.id)
FROM {SERVICE} s WHERE s.id = ANY ((SELECT %s::bigint[])::bigint[])
"""


@dataclass(slots=True)
class Counts:
    """The counts of services and owners, with the entries accepted so far.

    `claimed` are the services that this transaction has created, `admitted` those of them that are within the quota.
    """

    limits: Usage
    of_services: Counter[int]
    instances: Counter[str]
    services: Counter[str]
    claimed: set[int]
    admitted: set[int] = field(default_factory=set)

    def refusal(self, service: ServiceRow) -> QuotaExceeded | None:
        """Return the error for one more instance of the service, or None."""
        if self.of_services[service.pk] >= MAX_INSTANCES_PER_SERVICE:
            return QuotaExceeded("service", MAX_INSTANCES_PER_SERVICE, "instances")
        if any(self.instances[owner] >= self.limits.instances for owner in service.owners):
            setting = "REGISTRY_MAX_INSTANCES_PER_OWNER"
            return QuotaExceeded("service's owner", self.limits.instances, "instances", setting)
        is_new = service.pk in self.claimed - self.admitted
        if is_new and any(self.services[owner] >= self.limits.services for owner in service.owners):
            return QuotaExceeded("owner", self.limits.services, "services", "REGISTRY_MAX_SERVICES_PER_OWNER")
        return None

    def add(self, service: ServiceRow) -> None:
        """Count one more instance of the service, and the service when this transaction has created it."""
        self.of_services[service.pk] += 1
        self.instances.update(service.owners)
        if service.pk in self.claimed - self.admitted:
            self.admitted.add(service.pk)
            self.services.update(service.owners)


def refuse_over_quota(new: Sequence[Entry], created: Collection[tuple[str, str]]) -> None:
    """Refuse new instances whose service or whose owner has reached its limit.

    The count of a service is exact, because its row is locked. So is that of an owner, whose usage is locked.

    Args:
        new: the entries whose instances would be inserted.
        created: the names of the services that this transaction has created.
    """
    services = {entry.service_pk: entry.service for entry in new if entry.service}
    claimed = {entry.service_pk for entry in new if entry.service_key in created}
    adding = Counter(owner for entry in new for owner in services[entry.service_pk].owners)
    claiming = Counter(owner for pk in claimed for owner in services[pk].owners)
    limits = Usage(settings.REGISTRY_MAX_INSTANCES_PER_OWNER, settings.REGISTRY_MAX_SERVICES_PER_OWNER)
    usage, counted = owner_usage.reserve(adding, claiming, limits)
    with prepared_cursor() as cursor:
        cursor.execute(COUNT_OF_SERVICES, [list(services)])
        counts = Counts(
            limits,
            Counter(dict(cursor.fetchall())),
            Counter({owner: each.instances for owner, each in usage.items()}),
            Counter({owner: each.services for owner, each in usage.items()}),
            claimed,
        )
    for entry in new:
        service = services[entry.service_pk]
        entry.refusal = counts.refusal(service)
        if entry.refusal is None:
            counts.add(service)
    owner_usage.store({owner: Usage(counts.instances[owner], counts.services[owner]) for owner in counted})
