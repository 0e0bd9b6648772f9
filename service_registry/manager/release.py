"""release: an operator's word that what is held in a service past its deadline may go."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db import connection

from service_registry import changes
from service_registry.caller import Caller
from service_registry.database.retrying import retried
from service_registry.documents import INSTANCE, LEASE, SERVICE
from service_registry.exceptions import RegistryError, ServiceNotFound
from service_registry.manager.batch import write
from service_registry.schemas import ReleaseOrder


@dataclass(frozen=True, slots=True)
class Released:
    """So many are held at this moment; the next sweep lets them go, and for 15 minutes nobody is held here."""

    held: int


MARK = f"""
-- Locks the service. Of two who release it at once the later one's quarter of an hour stands.
UPDATE {SERVICE} SET released_at = statement_timestamp() WHERE namespace = %s AND name = %s
RETURNING id
"""
COUNT = f"""
SELECT count(*) FROM {INSTANCE} i JOIN {LEASE} l ON l.instance_id = i.id
WHERE i.service_id = %s AND l.protected_at IS NOT NULL
"""


def release(orders: Sequence[ReleaseOrder], caller: Caller) -> list[Released | RegistryError]:
    """Release services, one order at a time. Outcome otherwise: ServiceNotFound."""
    return [retried(lambda order=order: release_one(order, caller)) for order in orders]  # type: ignore[misc]


def release_one(order: ReleaseOrder, caller: Caller) -> Released | RegistryError:
    """One transaction, which touches no lease: whoever beats meanwhile is not held any more when the sweep comes."""
    with write(lock_timeout="3s"), connection.cursor() as cursor:
        cursor.execute(MARK, [order.namespace, order.name])
        row = cursor.fetchone()
        if row is None:
            return ServiceNotFound()
        cursor.execute(COUNT, row)
        (held,) = cursor.fetchone()
        released = changes.Event(
            "released", order.namespace, order.name, caller.actor, reason=order.reason, evidence={"held": held}
        )
        changes.append([released])
    return Released(held)
