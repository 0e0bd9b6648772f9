"""release: an operator's word that what is held in a service past its deadline may go."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from django.db import connection

from service_registry import changelog
from service_registry.caller import Caller
from service_registry.choices import ChangeKind
from service_registry.database.retries import with_retries
from service_registry.database.transactions import write_transaction
from service_registry.exceptions import RegistryError, ServiceNotFound
from service_registry.schemas import ServiceRelease
from service_registry.sql import INSTANCE, LEASE, SERVICE


@dataclass(frozen=True, slots=True)
class Released:
    """So many are held at this moment; the next sweep lets them go, and for 15 minutes nobody is held here."""

    protected: int


MARK = f"""
-- Locks the service. Of two who release it at once the later one's quarter of an hour stands.
UPDATE {SERVICE} SET released_at = statement_timestamp() WHERE namespace = %s AND name = %s
RETURNING id, pg_current_xact_id()::text
"""
COMMITTED = """
-- Locks nothing. https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SNAPSHOT
SELECT number FROM unnest(%s::text[]) number WHERE pg_xact_status(number::xid8) = 'committed'
"""
COUNT = f"""
SELECT count(*) FROM {INSTANCE} i JOIN {LEASE} l ON l.instance_id = i.id
WHERE i.service_id = %s AND l.protected_at IS NOT NULL
"""


def release(orders: Sequence[ServiceRelease], caller: Caller) -> list[Released | RegistryError]:
    """Release services, one order at a time. Outcome otherwise: ServiceNotFound."""
    return [with_retries(Releasing(order, caller)) for order in orders]


@dataclass
class Releasing:
    """One order, which may be tried again: an operator's word is one change, however often the database was asked."""

    order: ServiceRelease
    caller: Caller
    attempts: dict[str, int] = field(default_factory=dict)  # how many were held, by the number of the transaction

    def __call__(self) -> Released | RegistryError:
        """One transaction, which touches no lease: whoever beats meanwhile is not held any more when the sweep comes.

        1. Mark the service, and so wait for an earlier attempt of ours that is still under way.
        2. Ask how earlier attempts ended: the answer to a commit can be lost, and then it is done already.
        3. Count and append.
        """
        with write_transaction(lock_timeout="3s"), connection.cursor() as cursor:
            cursor.execute(MARK, [self.order.namespace, self.order.name])
            row = cursor.fetchone()
            if row is None:
                return ServiceNotFound()
            service_pk, number = row
            cursor.execute(COMMITTED, [list(self.attempts)])
            if done := cursor.fetchone():
                return Released(self.attempts[done[0]])
            cursor.execute(COUNT, [service_pk])
            (self.attempts[number],) = cursor.fetchone()
            self.append(self.attempts[number])
        return Released(self.attempts[number])

    def append(self, protected: int) -> None:
        order, actor = self.order, self.caller.actor
        evidence = {"protected": protected}
        changelog.append_changes(
            [
                changelog.NewChange(
                    ChangeKind.RELEASED, order.namespace, order.name, actor, reason=order.reason, evidence=evidence
                )
            ]
        )
