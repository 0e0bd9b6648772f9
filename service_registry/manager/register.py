"""Register: an instance states where it is.

A registration is complete and idempotent.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any

from service_registry import changelog
from service_registry.caller import Caller
from service_registry.choices import ChangeKind
from service_registry.database.transactions import write_transaction
from service_registry.exceptions import NotOwner, RegistryError
from service_registry.manager.batch import Key, Submission, key_of, run_batch, submissions_of
from service_registry.manager.registration import claims, instances, quota, unchanged
from service_registry.manager.registration.entry import Entry, accepted
from service_registry.manager.renewal import lease_members
from service_registry.schemas import Registration
from service_registry.sql import MEMBERS


@dataclass(frozen=True, slots=True)
class Registered:
    """A listed instance as readers see it, with its lease.

    `created` means that its row is new.
    """

    created: bool
    document: dict[str, Any]

    def again(self) -> "Registered":
        """Return the result of the same registration right after this one."""
        return replace(self, created=False)


class RowVanishedError(Exception):
    """A row was deleted after it had been read without a lock.

    Its service must be locked to insert it again.
    """


class ClaimFailedError(Exception):
    """A caller's claim created a service without instances.

    Others of the batch were refused because of it.
    """


def register(items: Sequence[Registration], caller: Caller) -> list[Registered | RegistryError]:
    """Put instances on the list, or update those that are there.

    Other outcomes: NotOwner, OwnerRequired, NotProvisioned, QuotaExceeded, InvalidInput (a repeated key).
    """
    return register_for_callers(submissions_of(caller, items), lock_timeout="3s")


def register_for_callers(
    submissions: Sequence[Submission[Registration]], lock_timeout: str
) -> list[Registered | RegistryError]:
    """Run `register` for many callers in one batch.

    Raises OperationalError when another transaction locks a row for longer than `lock_timeout`.
    """
    return run_batch(submissions, lambda distinct: register_distinct(distinct, lock_timeout))


def merge_registrations(
    first: Submission[Registration], second: Submission[Registration]
) -> Submission[Registration] | None:
    """Return the second registration where it replaces the first, made a moment before, without a trace.

    Both are by one caller and of one process: another host, port or incarnation begins another epoch, which only the
    process that it belongs to may learn.
    """

    def kept(submission: Submission[Registration]) -> tuple[object, ...]:
        item = submission.item
        return submission.caller, item.host, item.port, item.incarnation, item.owner

    return second if kept(first) == kept(second) else None


def register_distinct(
    submissions: Sequence[Submission[Registration]], lock_timeout: str
) -> list[Registered | RegistryError]:
    """Register a batch with distinct keys, again when the transaction lost a race."""
    try:
        return register_new_or_changed(submissions, lock_timeout)
    except RowVanishedError:
        return register_new_or_changed(submissions, lock_timeout, always_lock_services=True)
    except ClaimFailedError:
        return register_by_caller(submissions, lock_timeout)


def register_by_caller(
    submissions: Sequence[Submission[Registration]], lock_timeout: str
) -> list[Registered | RegistryError]:
    """Register in one transaction per caller, one after the other."""
    outcomes: dict[int, Registered | RegistryError] = {}
    for caller in dict.fromkeys(submission.caller for submission in submissions):
        positions = [position for position, submission in enumerate(submissions) if submission.caller == caller]
        own = [submissions[position] for position in positions]
        outcomes |= zip(positions, register_distinct(own, lock_timeout), strict=True)
    return [outcomes[position] for position in range(len(submissions))]


def register_new_or_changed(
    submissions: Sequence[Submission[Registration]], lock_timeout: str, always_lock_services: bool = False
) -> list[Registered | RegistryError]:
    """Renew the leases of registrations with nothing new, and register the others.

    The first need one statement, which waits for no lock, and no transaction. Raises as `register_in_transaction`.
    """
    entries = [Entry(submission.item, submission.caller) for submission in submissions]
    unchanged.find_or_renew(submissions, entries)
    rest = [entry for entry in entries if entry.renewed is None]
    documents = register_in_transaction(rest, lock_timeout, always_lock_services) if rest else {}
    return [entry.refusal or to_outcome(entry, documents) for entry in entries]


def register_in_transaction(entries: Sequence[Entry], lock_timeout: str, always_lock_services: bool) -> dict[Key, str]:
    """Register in one transaction, and return the instances as JSON.

    1. Services and instances have been found without locks. Where all instances exist the services need no lock, and
       owners are taken as found.
    2. Otherwise create the services that do not exist, and lock all services in the order of their names. Of two
       callers who claim a name one inserts it; the other waits and reads the winner's row. A service's new instances
       are inserted only under its lock, so that those which are missing or counted stay so until the commit.
    3. Lock the instances, then their leases. A heartbeat, sweep or removal under way has ended, or waits for us.
    4. Write, read the outcome, and append under the change lock.

    Raises:
        RowVanishedError: a service was deleted between 1 and 2, or an instance between 1 and 3. Not with
            `always_lock_services`.
        ClaimFailedError: a caller's claim created a service without instances, and refused other callers.
    """
    with write_transaction(lock_timeout):
        claims.refuse_unowned_services([entry for entry in entries if entry.service])
        created: dict[tuple[str, str], Caller] = {}
        services_locked = always_lock_services or not all(entry.instance_exists for entry in accepted(entries))
        if services_locked:
            created = claims.create_services(accepted(entries))
            claims.lock_services(accepted(entries))
            if not always_lock_services and any(entry.service is None for entry in accepted(entries)):
                raise RowVanishedError
            claims.refuse_unowned_services(entries)
        instances.lock_existing(accepted(entries))
        new = [entry for entry in accepted(entries) if entry.existing is None]
        if new:
            if not services_locked:
                raise RowVanishedError
            quota.refuse_over_quota(new, created.keys())
            kept = claims.delete_empty_services(created, entries)
            check_failed_claims(entries, {key: created[key] for key in created.keys() - kept})
            created = kept
        instances.update_instances([entry for entry in accepted(entries) if entry.existing])
        instances.insert_instances(accepted(new))
        documents = instances.read_documents([entry for entry in accepted(entries) if not kind_of_change(entry)])
        changes = [*service_changes(entries, created), *instance_changes(accepted(entries))]
        return documents | changelog.append_changes(changes)


def check_failed_claims(entries: Sequence[Entry], deleted: Mapping[tuple[str, str], Caller]) -> None:
    """Raise ClaimFailedError when a failed claim has refused another caller.

    A claim has failed when the service that it created was deleted again.
    """
    for entry in entries:
        if isinstance(entry.refusal, NotOwner) and deleted.get(entry.service_key, entry.caller) != entry.caller:
            raise ClaimFailedError


def to_outcome(entry: Entry, documents: Mapping[Key, str]) -> Registered:
    if entry.renewed:
        return Registered(created=False, document=entry.renewed)
    members = json.loads(documents[key_of(entry.item)])
    document = {name: members[name] for name in MEMBERS}
    return Registered(entry.existing is None, document | {"lease": lease_members(document, *entry.times)})


def service_changes(
    entries: Sequence[Entry], created: Mapping[tuple[str, str], Caller]
) -> Iterable[changelog.NewChange]:
    owners = {entry.service_key: entry.service.owners for entry in entries if entry.service}
    for (namespace, name), claimant in sorted(created.items(), key=itemgetter(0)):
        evidence = {"owners": owners[namespace, name]}
        yield changelog.NewChange(ChangeKind.SERVICE_CREATED, namespace, name, claimant.actor, evidence=evidence)


def instance_changes(entries: Sequence[Entry]) -> Iterable[changelog.NewChange]:
    for entry in entries:
        kind = kind_of_change(entry)
        if kind:
            yield changelog.NewChange(
                kind,
                *entry.service_key,
                entry.caller.actor,
                entry.item.instance_id,
                entry.instance_pk,
                changed=changed_members(entry) or None,
                reported="reported_status" in entry.changed,
            )


def kind_of_change(entry: Entry) -> ChangeKind | None:
    """Return the one kind of change of this registration, by precedence.

    Returns None when readers see no difference.
    """
    if entry.existing is None:
        return ChangeKind.REGISTERED
    if entry.existing.expired or entry.existing.protected:
        return ChangeKind.RECOVERED
    if entry.changed:
        return ChangeKind.STATUS_CHANGED if entry.changed == ("reported_status",) else ChangeKind.UPDATED
    return None


# Where a column is not the one member of its name.
MEMBERS_OF_COLUMN = {
    "reported_status": ["reported_status", "status"],
    "host": ["host", "url"],
    "port": ["port", "url"],
    "scheme": ["scheme", "url"],
    "incarnation": [],
    "health_check": [],
}


def changed_members(entry: Entry) -> list[str]:
    """Return the members of the instance's document that differ for readers."""
    shown = [member for column in entry.changed for member in MEMBERS_OF_COLUMN.get(column, [column])]
    if entry.health_began_anew:
        shown.append("health")
    if entry.moved:
        shown += ["epoch", "registered_at"]
    return list(dict.fromkeys(shown))
