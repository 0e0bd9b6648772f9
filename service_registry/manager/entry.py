"""One registration on its way through the verb, and what the steps find out about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from service_registry.caller import Caller
from service_registry.exceptions import RegistryError
from service_registry.schemas import Registration


@dataclass(slots=True)
class ServiceRow:
    """A service as read or locked."""

    pk: int
    owners: list[str]


@dataclass(frozen=True, slots=True)
class Standing:
    """An instance's row as locked: its primary key, the fields a registration states, what its lease
    says, and whether a reported status waits for its minute's end."""

    pk: int
    fields: dict[str, Any]
    unlisted: bool
    protected: bool
    pending: bool


@dataclass(slots=True)
class Entry:
    """`refusal` ends its way. `standing` is None for a row that is new."""

    item: Registration
    caller: Caller
    surveyed: bool = False
    service: ServiceRow | None = None
    standing: Standing | None = None
    instance_pk: int | None = None
    changed: tuple[str, ...] = ()
    refusal: RegistryError | None = None

    @property
    def service_key(self) -> tuple[str, str]:
        return self.item.namespace, self.item.service_name

    @property
    def service_pk(self) -> int:
        assert self.service is not None, "services are known before instances are locked"
        return self.service.pk

    @property
    def moved(self) -> bool:
        """Whether another process has the id now: the epoch grows."""
        return not {"host", "port"}.isdisjoint(self.changed)


def going_on(entries: Sequence[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.refusal is None]
