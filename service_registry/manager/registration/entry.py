"""A registration under way, with what the steps of `register` find out about it."""

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
class ExistingRow:
    """The state of an instance that was registered before, as locked.

    `pending` means that a reported status waits for the end of the minute.
    """

    expired: bool
    protected: bool
    pending: bool


@dataclass(slots=True)
class Entry:
    """A registration under way.

    `instance_exists` is read without a lock, and so is `found`, the instance's document where nothing is new. `renewed`
    is that with its lease, and the end of it. `existing` is read under the lock, and None for a new instance. `changed`
    are the columns in which the registration differs from the row. An entry with a `refusal` goes no further.
    """

    item: Registration
    caller: Caller
    instance_exists: bool = False
    found: dict[str, Any] | None = None
    renewed: dict[str, Any] | None = None
    service: ServiceRow | None = None
    existing: ExistingRow | None = None
    instance_pk: int | None = None
    changed: tuple[str, ...] = ()
    times: Sequence[str] = ()
    refusal: RegistryError | None = None

    @property
    def service_key(self) -> tuple[str, str]:
        return self.item.namespace, self.item.service_name

    @property
    def service_pk(self) -> int:
        assert self.service is not None, "services are known before instances are locked"
        return self.service.pk

    @property
    def health_began_anew(self) -> bool:
        """Return whether readers may see another health: of another check, or of another process."""
        return "health_check" in self.changed or (self.moved and self.item.health_check is not None)

    @property
    def moved(self) -> bool:
        """Return whether another process has taken the id, so that the epoch grows."""
        return not {"host", "port", "incarnation"}.isdisjoint(self.changed)


def accepted(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries that no step has refused."""
    return [entry for entry in entries if entry.refusal is None]
