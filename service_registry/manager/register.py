"""register: an instance says where it is. A full statement, and idempotent."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from service_registry import changelog
from service_registry.caller import Caller
from service_registry.choices import ChangeKind
from service_registry.database.transactions import write_transaction
from service_registry.exceptions import NotOwner, RegistryError
from service_registry.manager import instances, quota, services
from service_registry.manager.batch import Submission, each_once, submissions_of
from service_registry.manager.entry import Entry, going_on
from service_registry.schemas import Registration


@dataclass(frozen=True, slots=True)
class Registered:
    """The instance is listed with this document. `created` when its row is new."""

    created: bool
    document: dict[str, Any]


class Vanished(Exception):
    """A row that was there a moment ago is gone, so its service has to be locked to make it anew."""


class Stranded(Exception):
    """A service that one caller had claimed came to nothing, and with it what other callers of the batch asked."""


def register(items: Sequence[Registration], caller: Caller) -> list[Registered | RegistryError]:
    """Put instances on the list, or bring what is listed up to date.

    Outcomes otherwise: NotOwner, OwnerRequired, NotProvisioned, QuotaExceeded, InvalidInput (a repeated key).
    """
    return register_for_callers(submissions_of(caller, items), lock_timeout="3s")


def register_for_callers(
    asked: Sequence[Submission[Registration]], lock_timeout: str
) -> list[Registered | RegistryError]:
    """`register`, of many callers in one batch. Raises OperationalError when a row is held for longer."""
    return each_once(asked, lambda once: register_once(once, lock_timeout))


def register_once(asked: Sequence[Submission[Registration]], lock_timeout: str) -> list[Registered | RegistryError]:
    try:
        return attempt(asked, lock_timeout)
    except Vanished:
        return attempt(asked, lock_timeout, lock_services=True)
    except Stranded:
        return caller_by_caller(asked, lock_timeout)


def caller_by_caller(asked: Sequence[Submission[Registration]], lock_timeout: str) -> list[Registered | RegistryError]:
    """As if each caller had come alone, one after the other."""
    outcomes: dict[int, Registered | RegistryError] = {}
    for caller in dict.fromkeys(each.caller for each in asked):
        places = [place for place, each in enumerate(asked) if each.caller == caller]
        outcomes |= zip(places, register_once([asked[place] for place in places], lock_timeout), strict=True)
    return [outcomes[place] for place in range(len(asked))]


def attempt(
    asked: Sequence[Submission[Registration]], lock_timeout: str, lock_services: bool = False
) -> list[Registered | RegistryError]:
    """One transaction.

    1. Survey without locks. Where all instances exist their services need none; owners are taken as surveyed.
    2. Otherwise claim the services that do not exist (of two claimants one inserts, the other waits and then reads the
       winner's row), and lock all services in the order of their names. New rows come into a service only under its
       lock, so what is missing and what is counted stay as they are until the commit.
    3. Lock the instances, then their leases: a heartbeat, sweep or removal under way has finished, or waits for us.
    4. Write, read the answer, and append under the change lock.

    Raises:
        Vanished: a service was deleted before step 2, or an instance removed before step 3; once.
        Stranded: one caller's claim made a service that comes to nothing, and others' were refused because of it.
    """
    entries = [Entry(each.item, each.caller) for each in asked]
    with write_transaction(lock_timeout):
        services.survey(entries)
        services.refuse_foreign([entry for entry in entries if entry.service])
        created: dict[tuple[str, str], Caller] = {}
        under_lock = lock_services or not all(entry.surveyed for entry in going_on(entries))
        if under_lock:
            created = services.claim(going_on(entries))
            services.lock(going_on(entries))
            if not lock_services and any(entry.service is None for entry in going_on(entries)):
                raise Vanished
            services.refuse_foreign(entries)
        instances.lock(going_on(entries))
        newcomers = [entry for entry in going_on(entries) if entry.standing is None]
        if newcomers:
            if not under_lock:
                raise Vanished
            quota.refuse_over_quota(newcomers)
            kept = services.take_back(created, entries)
            if stranded(entries, {key: created[key] for key in created.keys() - kept}):
                raise Stranded
            created = kept
        instances.update([entry for entry in going_on(entries) if entry.standing])
        instances.insert(going_on(newcomers))
        documents = instances.documents([entry.instance_pk for entry in going_on(entries) if entry.instance_pk])
        changelog.append_changes([*creations(entries, created), *events(going_on(entries))])
    return [entry.refusal or registered(entry, documents) for entry in entries]


def stranded(entries: Sequence[Entry], emptied: Mapping[tuple[str, str], Caller]) -> bool:
    """Whether anybody was refused as a stranger to a service that another had made, and that was taken back. With one
    caller alone nobody is."""
    return any(
        isinstance(entry.refusal, NotOwner) and emptied.get(entry.service_key, entry.caller) != entry.caller
        for entry in entries
    )


def registered(entry: Entry, documents: dict[int, dict[str, Any]]) -> Registered:
    assert entry.instance_pk is not None, "an entry that was not refused has its row"
    return Registered(created=entry.standing is None, document=documents[entry.instance_pk])


def creations(entries: Sequence[Entry], created: Mapping[tuple[str, str], Caller]) -> Iterable[changelog.NewChange]:
    owners = {entry.service_key: entry.service.owners for entry in entries if entry.service}
    for (namespace, name), claimant in sorted(created.items(), key=itemgetter(0)):
        yield changelog.NewChange(
            ChangeKind.SERVICE_CREATED, namespace, name, claimant.actor, evidence={"owners": owners[namespace, name]}
        )


def events(entries: Sequence[Entry]) -> Iterable[changelog.NewChange]:
    for entry in entries:
        kind = kind_of(entry)
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


def kind_of(entry: Entry) -> ChangeKind | None:
    """The one kind of change this registration makes, by precedence; None when no reader sees a difference."""
    if entry.standing is None:
        return ChangeKind.REGISTERED
    if entry.standing.unlisted or entry.standing.protected:
        return ChangeKind.RECOVERED
    if entry.changed:
        return ChangeKind.STATUS_CHANGED if entry.changed == ("reported_status",) else ChangeKind.UPDATED
    return None


def changed_members(entry: Entry) -> list[str]:
    """The members of the instance's document that a reader sees differ."""
    follow = {"reported_status": ["status"], "host": ["url"], "port": ["url"], "scheme": ["url"]}
    members = [member for column in entry.changed for member in (column, *follow.get(column, []))]
    if entry.moved:
        members += ["epoch", "registered_at"]
    return list(dict.fromkeys(members))
