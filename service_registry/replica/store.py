"""Hold the catalogue in memory as the change log describes it at one index.

Instances are kept as the JSON text that PostgreSQL rendered, with the two keys that discovery filters on by default.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from sys import intern
from typing import Any, NamedTuple

from service_registry.changelog.read import OWNER_KINDS, RecordedChange
from service_registry.choices import ChangeKind, State

# The changes after which an instance no longer exists.
DELETION_KINDS = {ChangeKind.DEREGISTERED, ChangeKind.PURGED}


class InstanceEntry(NamedTuple):
    """An instance: its JSON text, its effective status and its state."""

    document: bytes
    status: str
    state: str


@dataclass(slots=True)
class ServiceEntry:
    """A service and its instances.

    `index` names its last change; it is None when the log contains none of the service.
    """

    owners: tuple[str, ...]
    index: str | None = None
    pk: int = 0
    instances: dict[str, InstanceEntry] = field(default_factory=dict)
    in_order: bool = False
    # Maintained rather than counted, because each response says whether there are any.
    protected_instances: int = 0

    @property
    def protected(self) -> bool:
        return self.protected_instances > 0

    def put_instance(self, instance_id: str, entry: InstanceEntry) -> None:
        before = self.instances.get(instance_id)
        self.in_order = self.in_order and before is not None
        self.protected_instances += is_protected(entry) - is_protected(before)
        self.instances[instance_id] = entry

    def remove_instance(self, instance_id: str) -> None:
        """Remove an instance if it is there: a change may be applied twice."""
        self.protected_instances -= is_protected(self.instances.pop(instance_id, None))

    def copy(self) -> "ServiceEntry":
        """Copy the entry, so that a thread can read it while the event loop changes it."""
        return replace(self, instances=self.instances.copy())

    def sorted_instances(self) -> Sequence[InstanceEntry]:
        """Return the instances by id, in PostgreSQL's order: ids are ASCII.

        They are sorted only on demand.
        """
        if not self.in_order:
            self.instances = dict(sorted(self.instances.items()))
            self.in_order = True
        return list(self.instances.values())


def is_protected(entry: InstanceEntry | None) -> bool:
    return entry is not None and entry.state == State.PROTECTED


@dataclass(frozen=True, slots=True)
class Change:
    """A change as the feed reads it, encoded once for all subscribers.

    `entry` is the instance after the change, or None. `owners` are the owners of its service at that time, after the
    change; none where the log does not say. `public` is the JSON text for every reader; `private` that of an object
    with author, reason and evidence.
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
    owners: tuple[str, ...] = ()

    @classmethod
    def from_recorded(cls, recorded: RecordedChange, entry: InstanceEntry | None = None) -> "Change":
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
            tuple(map(intern, recorded.owners or ())),
        )

    @property
    def full(self) -> bytes:
        """The JSON text for readers who may see author, reason and evidence."""
        return b"%b, %b" % (self.public[:-1], self.private[1:])

    @property
    def service_key(self) -> tuple[str, str] | None:
        if self.namespace is None or self.service_name is None:
            return None
        return self.namespace, self.service_name

    @property
    def size_bytes(self) -> int:
        """Bytes of JSON text in memory."""
        return len(self.public) + len(self.private) + (len(self.entry.document) if self.entry else 0)


@dataclass(slots=True)
class Replica:
    """The services by namespace and name.

    `index` and `pk` are those of the last change that was applied. A replica belongs to the event loop: no other
    thread reads or changes it.
    """

    index: str
    pk: int
    services: dict[tuple[str, str], ServiceEntry] = field(default_factory=dict)

    def apply(self, change: Change) -> None:
        """Apply the next change. To apply it twice does no harm.

        Each change contains its whole instance.
        """
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
        if change.kind in OWNER_KINDS:
            service.owners = change.owners
        if change.instance_id is not None:
            if change.entry is not None:
                service.put_instance(change.instance_id, change.entry)
            elif change.kind in DELETION_KINDS:
                service.remove_instance(change.instance_id)
        service.index, service.pk = change.index, change.pk


def needs_parsing(parameters: Mapping[str, Any]) -> bool:
    """Return whether a filter looks into documents, which then have to be parsed."""
    return parameters["zone"] is not None or bool(parameters["tags"]) or parameters["metadata"] != "{}"


def filter_documents(entries: Sequence[InstanceEntry], parameters: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield the documents that `filters.MATCHES` selects with the same parameters."""
    statuses, states = frozenset(parameters["statuses"]), frozenset(parameters["states"])
    texts = required_texts(parameters)
    for document, status, state in entries:
        if status in statuses and state in states and (not texts or document_matches(document, texts, parameters)):
            yield document


def required_texts(parameters: Mapping[str, Any]) -> list[bytes]:
    """Return texts that every matching document contains.

    They are escaped as PostgreSQL escapes them in JSON.
    """
    values = [value for value in (parameters["zone"], *parameters["tags"]) if value is not None]
    texts = [json.dumps(value, ensure_ascii=False) for value in values]
    for key, value in json.loads(parameters["metadata"]).items():
        texts.append(json.dumps({key: value}, ensure_ascii=False)[1:-1])
    return [text.encode() for text in texts]


def document_matches(document: bytes, texts: Sequence[bytes], parameters: Mapping[str, Any]) -> bool:
    """Search the document for the texts before parsing it.

    100,000 documents take 0.1 s instead of 0.75 s.
    """
    if not all(text in document for text in texts):
        return False
    instance = json.loads(document)
    return (
        parameters["zone"] in {None, instance["zone"]}
        and set(parameters["tags"]) <= set(instance["tags"])
        and json.loads(parameters["metadata"]).items() <= instance["metadata"].items()
    )
