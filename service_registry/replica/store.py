"""The catalogue in memory: what discovery reads, as the log's state at its end.

Documents are kept as PostgreSQL rendered them, with the few keys that discovery's defaults need. A replica belongs to
the event loop: only there is it read and changed.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from service_registry.changelog.read import RecordedChange, owners_in_evidence
from service_registry.choices import ChangeKind, State

REMOVAL_KINDS = {ChangeKind.DEREGISTERED, ChangeKind.PURGED}


class InstanceEntry(NamedTuple):
    """An instance: its JSON text, and what decides by default whether discovery gives it."""

    document: bytes
    status: str
    state: str


@dataclass(slots=True)
class ServiceEntry:
    """A service. `index` names its last change, and is None where the log holds none."""

    owners: tuple[str, ...]
    index: str | None = None
    pk: int = 0
    instances: dict[str, InstanceEntry] = field(default_factory=dict)
    in_order: bool = False
    # Kept rather than counted: each answer says whether there are any.
    protected_instances: int = 0

    @property
    def protected(self) -> bool:
        return self.protected_instances > 0

    def put_instance(self, instance_id: str, entry: InstanceEntry) -> None:
        before = self.instances.get(instance_id)
        self.in_order = self.in_order and before is not None
        self.protected_instances += is_protected(entry) - is_protected(before)
        self.instances[instance_id] = entry

    def copy(self) -> "ServiceEntry":
        """As it stands now, for a thread to look at."""
        return replace(self, instances=self.instances.copy())

    def remove_instance(self, instance_id: str) -> None:
        """Also one that is not there: a change may be applied twice."""
        self.protected_instances -= is_protected(self.instances.pop(instance_id, None))

    def sorted_instances(self) -> Sequence[InstanceEntry]:
        """By instance id, byte by byte, as the database has it: ids are ASCII. They are put in order when asked for."""
        if not self.in_order:
            self.instances = dict(sorted(self.instances.items()))
            self.in_order = True
        return list(self.instances.values())


def is_protected(entry: InstanceEntry | None) -> bool:
    return entry is not None and entry.state == State.PROTECTED


@dataclass(frozen=True, slots=True)
class Change:
    """A change as the feed brings it, rendered once for all who watch.

    `entry` is the instance after it, None where it has none. `owners` are those that it gives the service, None where
    it gives none.
    """

    pk: int
    index: str
    kind: str
    namespace: str | None
    service_name: str | None
    instance_id: str | None
    public: bytes
    private: bytes
    entry: InstanceEntry | None = None
    owners: tuple[str, ...] | None = None

    @classmethod
    def from_recorded(
        cls, recorded: RecordedChange, entry: InstanceEntry | None = None, owners: Sequence[str] | None = None
    ) -> "Change":
        return cls(
            recorded.pk,
            recorded.index,
            recorded.kind,
            recorded.namespace,
            recorded.service_name,
            recorded.instance_id,
            recorded.public.encode(),
            recorded.private.encode(),
            entry,
            None if owners is None else tuple(owners),
        )

    @property
    def full(self) -> bytes:
        """For those who may see who did it, and why."""
        return b"%b, %b" % (self.public[:-1], self.private[1:])

    @property
    def service_key(self) -> tuple[str, str] | None:
        if self.namespace is None or self.service_name is None:
            return None
        return self.namespace, self.service_name


@dataclass(slots=True)
class Replica:
    """`index` and `pk` are those of the last change it holds."""

    index: str
    pk: int
    services: dict[tuple[str, str], ServiceEntry] = field(default_factory=dict)

    def apply(self, change: Change) -> None:
        """Go on by one change. Each states its instance whole, so that applying one again changes nothing."""
        if change.service_key is not None:
            self.apply_to_service(change, change.service_key)
        self.index, self.pk = change.index, change.pk

    def apply_to_service(self, change: Change, key: tuple[str, str]) -> None:
        if change.kind == ChangeKind.SERVICE_DELETED:
            self.services.pop(key, None)
            return
        service = self.services.get(key)
        if service is None:
            service = self.services[key] = ServiceEntry(())
        if change.owners is not None:
            service.owners = change.owners
        if change.instance_id is not None:
            if change.entry is not None:
                service.put_instance(change.instance_id, change.entry)
            elif change.kind in REMOVAL_KINDS:
                service.remove_instance(change.instance_id)
        service.index, service.pk = change.index, change.pk

    def find_owners(self, change: Change) -> Sequence[str]:
        """Whose service a change is about: as it stands, and as the change itself says of one that is gone."""
        service = self.services.get(change.service_key) if change.service_key else None
        return service.owners if service else owners_in_evidence(change.kind, change.private)


def needs_parsing(parameters: dict[str, Any]) -> bool:
    """Whether documents have to be parsed to tell which match."""
    return parameters["zone"] is not None or bool(parameters["tags"]) or parameters["metadata"] != "{}"


def filter_documents(entries: Sequence[InstanceEntry], parameters: dict[str, Any]) -> Iterator[bytes]:
    """The documents that `filters.MATCHES` would let through, given its parameters."""
    statuses, states = frozenset(parameters["statuses"]), frozenset(parameters["states"])
    inside = needs_parsing(parameters)
    for document, status, state in entries:
        if status in statuses and state in states and (not inside or document_matches(document, parameters)):
            yield document


def document_matches(document: bytes, parameters: dict[str, Any]) -> bool:
    instance = json.loads(document)
    return (
        parameters["zone"] in {None, instance["zone"]}
        and set(parameters["tags"]) <= set(instance["tags"])
        and json.loads(parameters["metadata"]).items() <= instance["metadata"].items()
    )
