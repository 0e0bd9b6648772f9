"""End services that were left empty: registrations created them, and nothing uses them."""

from django.conf import settings
from django.db import connection
from django.db.models.functions import Now

from service_registry import changelog
from service_registry.choices import ChangeKind
from service_registry.database.transactions import with_retries, write_transaction
from service_registry.manager.owners import reserve
from service_registry.models import Reservation, Service
from service_registry.sql import CHANGE, INSTANCE, NEWEST_FIRST, OVERRIDE, SERVICE

ACTOR = "system:empty-services"
SERVICES_PER_TRANSACTION = 500

# Without an instance in any state, and without an override: that keeps an instance out which may come.
IS_EMPTY = f"""(s.claimed
    AND NOT EXISTS (SELECT FROM {INSTANCE} i WHERE i.service_id = s.id)
    AND NOT EXISTS (SELECT FROM {OVERRIDE} o WHERE o.service_id = s.id))"""
# Its newest change tells since when: the last instance has left, or the last override has ended, then or before.
EMPTY_SINCE = f"""COALESCE((SELECT c.at FROM {CHANGE} c WHERE c.namespace = s.namespace AND c.service_name = s.name
    ORDER BY {NEWEST_FIRST} LIMIT 1), s.created_at)"""
IS_OVER = f"""({IS_EMPTY} AND {EMPTY_SINCE} < statement_timestamp() - make_interval(days => %(days)s))"""

LOCK = f"""
-- Locks services in the order of their names. One in which something is registered or overridden now is skipped.
SELECT s.id FROM {SERVICE} s WHERE {IS_OVER}
ORDER BY s.namespace, s.name LIMIT %(at_most)s
FOR UPDATE OF s SKIP LOCKED
"""
CONFIRM = f"SELECT s.id FROM {SERVICE} s WHERE s.id = ANY (%(pks)s::bigint[]) AND {IS_OVER}"

# Locks nothing.
COUNT = f"SELECT count(*) FILTER (WHERE {IS_OVER}), count(*) FROM {SERVICE} s WHERE {IS_EMPTY}"


def count_empty_services() -> tuple[int, int]:
    """Return how many services the next run would delete, and how many may end later or then."""
    with connection.cursor() as cursor:
        cursor.execute(COUNT, {"days": settings.REGISTRY_EMPTY_SERVICE_DAYS})
        due, empty = cursor.fetchone()
    return due if settings.REGISTRY_EMPTY_SERVICE_DAYS else 0, empty


def end_empty_services() -> int:
    """Delete the services that have been empty for too long, in batches; return how many.

    Their names are reserved as after a deletion by an operator. Reservations that are over are deleted, too.
    """
    if not settings.REGISTRY_EMPTY_SERVICE_DAYS:
        return 0
    total, full = 0, True
    while full:
        ended = with_retries(end_batch)
        total += ended
        full = ended == SERVICES_PER_TRANSACTION
    with write_transaction(lock_timeout="1s"):
        Reservation.objects.filter(until__lt=Now()).delete()
    return total


def end_batch() -> int:
    """Delete one batch in one transaction.

    1. Lock the services, so that registrations and overrides wait, and find no service afterwards: a registration then
       creates it anew.
    2. Look again in a separate statement, which sees what was committed between the reading and the locking of 1.
    3. Delete, reserve the names, and append under the change lock.
    """
    parameters = {"days": settings.REGISTRY_EMPTY_SERVICE_DAYS, "at_most": SERVICES_PER_TRANSACTION}
    with write_transaction(lock_timeout="1s"):
        with connection.cursor() as cursor:
            cursor.execute(LOCK, parameters)
            cursor.execute(CONFIRM, parameters | {"pks": [pk for (pk,) in cursor.fetchall()]})
            pks = [pk for (pk,) in cursor.fetchall()]
        services = list(Service.objects.filter(pk__in=pks).order_by("namespace", "name"))
        Service.objects.filter(pk__in=pks).delete()
        reserve(services)
        changelog.append_changes([to_change(service) for service in services])
    return len(services)


def to_change(service: Service) -> changelog.NewChange:
    return changelog.NewChange(
        ChangeKind.SERVICE_DELETED,
        service.namespace,
        service.name,
        ACTOR,
        reason=f"without an instance or an override for {settings.REGISTRY_EMPTY_SERVICE_DAYS} days",
        evidence={"owners": service.owners},
    )
