"""Release a service: an operator ends the protection of its instances."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from django.db import connection
from django.db.models.functions import Now

from service_registry import changelog
from service_registry.caller import Caller
from service_registry.choices import ChangeKind
from service_registry.database.transactions import with_retries, write_transaction
from service_registry.exceptions import RegistryError, ServiceNotFound
from service_registry.models import Instance, Service
from service_registry.schemas import ServiceRelease


@dataclass(frozen=True, slots=True)
class Released:
    """The number of instances that were protected. The next sweep expires them.

    For 15 minutes no instance of the service is protected anew.
    """

    protected: int


# https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SNAPSHOT
READ_TRANSACTION = """
-- Locks nothing.
SELECT pg_current_xact_id()::text,
    (SELECT number FROM unnest(%s::text[]) number WHERE pg_xact_status(number::xid8) = 'committed' LIMIT 1)
"""


def release(orders: Sequence[ServiceRelease], caller: Caller) -> list[Released | RegistryError]:
    """Release services, one after the other.

    The other possible outcome is ServiceNotFound.
    """
    return [with_retries(ReleaseTransaction(order, caller)) for order in orders]


@dataclass
class ReleaseTransaction:
    """The release of one service.

    It may be tried several times, and appends one change. `protected_counts` are the counts of earlier attempts, by
    the number of their transactions.
    """

    order: ServiceRelease
    caller: Caller
    protected_counts: dict[str, int] = field(default_factory=dict)

    def __call__(self) -> Released | RegistryError:
        """Release the service and append one change, also when it is tried several times.

        No lease is touched: one that is renewed meanwhile is not due when the sweep comes.

        1. Mark the service, which waits for an earlier attempt of ours that is still running.
        2. Read the outcome of earlier attempts: the response to a commit can be lost, and then the release is done.
        3. Count and append.
        """
        order = self.order
        with write_transaction(lock_timeout="3s"):
            services = Service.objects.filter(namespace=order.namespace, name=order.name)
            if not services.update(released_at=Now()):
                return ServiceNotFound()
            with connection.cursor() as cursor:
                cursor.execute(READ_TRANSACTION, [list(self.protected_counts)])
                number, committed = cursor.fetchone()
            if committed is not None:
                return Released(self.protected_counts[committed])
            protected = Instance.objects.protected().filter(service__in=services).count()
            self.protected_counts[number] = protected
            self._append_change(protected)
        return Released(protected)

    def _append_change(self, protected: int) -> None:
        change = changelog.NewChange(
            ChangeKind.RELEASED,
            self.order.namespace,
            self.order.name,
            self.caller.actor,
            reason=self.order.reason,
            evidence={"protected": protected},
        )
        changelog.append_changes([change])
