"""Owners: services are provisioned, handed over, and deleted when they are empty."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from django.conf import settings
from django.db import IntegrityError
from django.db.models.functions import Now

from service_registry import changelog
from service_registry.access_rules import access_rules
from service_registry.caller import Caller, is_ignored
from service_registry.choices import ChangeKind
from service_registry.database.transactions import with_retries, write_transaction
from service_registry.exceptions import InvalidInput, RegistryError, ServiceNotEmpty, ServiceNotFound
from service_registry.manager import owner_usage
from service_registry.models import Reservation, Service
from service_registry.schemas import ServiceOwners


@dataclass(frozen=True, slots=True)
class Owned:
    """The owners that a service has now. `created` means that it did not exist before."""

    created: bool
    owners: list[str]


def set_owners(items: Sequence[ServiceOwners], caller: Caller) -> list[Owned | RegistryError]:
    """Set the owners of services, and create those that do not exist.

    One transaction per item. Other outcome: InvalidInput, for a group that is a role or that every account has, as
    its members would all own the service.
    """
    return [refuse_common_groups(item) or with_retries(partial(set_owners_of, item, caller)) for item in items]


def refuse_common_groups(item: ServiceOwners) -> InvalidInput | None:
    for position, owner in enumerate(item.owners):
        if access_rules.current().is_role(owner) or is_ignored(owner):
            message = "is a role, or a group that every account has: it cannot own services"
            return InvalidInput.of_field(f"owners.{position}", "no_team", message)
    return None


def set_owners_of(item: ServiceOwners, caller: Caller) -> Owned:
    """Create or change one service.

    The second attempt is for a service that is deleted after it has kept the first one from inserting the name.
    """
    try:
        return set_owners_in_transaction(item, caller)
    except IntegrityError:
        return set_owners_in_transaction(item, caller)


def set_owners_in_transaction(item: ServiceOwners, caller: Caller) -> Owned:
    """Set the owners in one transaction.

    1. Lock the service, so that registrations of new instances wait and read the new owners.
    2. Where there is none, insert it. A rival that inserts the name is waited for, and its row is then locked.
    3. Keep the service from ending while it is empty: an operator wants it.
    4. Have the new owners counted again. No quota refuses what an operator gives them.
    """
    key = {"namespace": item.namespace, "name": item.name}
    with write_transaction(lock_timeout="3s"):
        service, created = Service.objects.select_for_update().get_or_create(**key, defaults={"owners": item.owners})
        Service.objects.filter(pk=service.pk, claimed=True).update(claimed=False)
        if created:
            Reservation.objects.filter(**key).delete()
            owner_usage.forget(item.owners)
            append(item, caller, ChangeKind.SERVICE_CREATED, {"owners": item.owners})
        elif service.owners != item.owners:
            Service.objects.filter(pk=service.pk).update(owners=item.owners)
            owner_usage.forget(item.owners)
            append(item, caller, ChangeKind.OWNERS_CHANGED, {"owners": item.owners, "before": service.owners})
    return Owned(created, item.owners)


def append(item: ServiceOwners, caller: Caller, kind: ChangeKind, evidence: dict[str, list[str]]) -> None:
    changelog.append_changes(
        [changelog.NewChange(kind, item.namespace, item.name, caller.actor, reason=item.reason, evidence=evidence)]
    )


def delete_service(namespace: str, name: str, reason: str | None, caller: Caller) -> RegistryError | None:
    """Delete a service without instances, and its overrides, in one transaction.

    The name stays reserved for the last owners, because a team that took a freed name would receive the callers of the
    old service.

    1. Lock the service, so that registrations of new instances wait, and find no service afterwards.
    2. Look for instances in a separate statement, which sees those that were registered while 1 waited.
    """
    with write_transaction(lock_timeout="3s"):
        service = Service.objects.select_for_update().filter(namespace=namespace, name=name).first()
        if service is None:
            return ServiceNotFound()
        if service.instances.exists():
            return ServiceNotEmpty()
        service.overrides.all().delete()
        service.delete()
        reserve([service])
        evidence = {"owners": service.owners}
        changelog.append_changes(
            [
                changelog.NewChange(
                    ChangeKind.SERVICE_DELETED, namespace, name, caller.actor, reason=reason, evidence=evidence
                )
            ]
        )
    return None


def reserve(services: Iterable[Service]) -> None:
    """Reserve the names of deleted services for their last owners."""
    until = Now() + timedelta(days=settings.REGISTRY_NAME_RESERVATION_DAYS)
    Reservation.objects.bulk_create(
        [
            Reservation(namespace=service.namespace, name=service.name, owners=service.owners, until=until)
            for service in services
        ],
        update_conflicts=True,
        unique_fields=["namespace", "name"],
        update_fields=["owners", "until"],
    )
