"""A page of the list, put together from the replica by the rules of `catalogue.PAGE`."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from service_registry.queries.catalogue import INSTANCES_A_PAGE, Page, Position, listed
from service_registry.queries.filters import ALL_STATUSES, LISTED, is_named, wanted
from service_registry.replica.store import Replica, ServiceEntry, matching
from service_registry.schemas import ListQuery

# So much is copied of the replica at once, on the event loop: less than a millisecond's worth.
SERVICES_AT_ONCE = 200
INSTANCES_AT_ONCE = 2000

Key = tuple[str, str]
Service = tuple[Key, ServiceEntry]


def in_order(keys: Iterable[Key], query: ListQuery, after: Position | None) -> Sequence[Key]:
    """Those that the query names and that come after the place where the walk stands, byte by byte, as the database has
    them: names are ASCII."""
    place = (after.namespace, after.name) if after else ("", "")
    return sorted(
        key for key in keys if key > place and query.namespace in {None, key[0]} and is_named(key[1], query.name)
    )


def parts(replica: Replica, keys: Iterable[Key], owner: str | None) -> Iterator[Sequence[Service]]:
    """Copies of the services that are there and of this owner, a part at a time. Takes its steps on the event loop."""
    part: list[Service] = []
    instances = 0
    for number, key in enumerate(keys, 1):
        service = replica.services.get(key)
        if service and owner in {None, *service.owners}:
            part.append((key, service.copy()))
            instances += len(service.instances)
        if number % SERVICES_AT_ONCE == 0 or instances >= INSTANCES_AT_ONCE:
            yield part
            part, instances = [], 0
    yield part


@dataclass(slots=True)
class ListPage:
    """A page in the making; `more` once it is full and there is another service for the next one."""

    query: ListQuery
    index: str
    rows: list[str] = field(default_factory=list)
    last: Key = ("", "")
    shown: int = 0
    more: bool = False

    def add(self, services: Iterable[Service]) -> None:
        """Look at the services that come next, until the page is full."""
        asked = wanted(self.query, ALL_STATUSES)
        for key, service in services:
            documents = list(matching(service.sorted(), asked.parameters))
            if asked.thinned and not documents:
                continue
            if self.is_full:
                self.more = True
                return
            self.rows.append(self.row(key, service, documents))
            self.shown += len(documents)
            self.last = key

    @property
    def is_full(self) -> bool:
        return len(self.rows) >= self.query.limit or (self.query.view == "full" and self.shown >= INSTANCES_A_PAGE)

    def row(self, key: Key, service: ServiceEntry, documents: Iterable[bytes]) -> str:
        states = Counter((entry.state in LISTED, entry.status) for entry in service.instances.values())
        count = sum(number for (is_listed, _status), number in states.items() if is_listed)
        members = (*key, service.owners, count, states[True, "UP"], service.protected, service.index)
        array = (b"[%b]" % b", ".join(documents)).decode() if self.query.view == "full" else None
        return listed(members, array, self.index)

    def page(self, after: Position | None) -> Page:
        begun_at = after.index if after else self.index
        following = Position(begun_at, *self.last) if self.more else None
        return Page(self.index, begun_at, f"[{','.join(self.rows)}]", following)
