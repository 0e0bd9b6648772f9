"""Build a page of the list from the replica, by the rules of `catalogue.PAGE`."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from service_registry.choices import Status
from service_registry.queries.catalogue import INSTANCES_PER_PAGE, ListPosition, ServicePage, render_service
from service_registry.queries.filters import LISTED_STATES, name_matches, resolve_filters
from service_registry.replica.store import Replica, ServiceEntry, filter_documents
from service_registry.schemas import ListQuery

# The part of the replica that is copied at once on the event loop: less than a millisecond's work.
SERVICES_PER_PART = 200
INSTANCES_PER_PART = 2000

Key = tuple[str, str]
Service = tuple[Key, ServiceEntry]


def select_keys(keys: Iterable[Key], query: ListQuery, after: ListPosition | None) -> Sequence[Key]:
    """Return the keys that the query selects after a position, in order.

    The order is PostgreSQL's, because names are ASCII.
    """
    place = (after.namespace, after.name) if after else ("", "")
    return sorted(
        key for key in keys if key > place and query.namespace in {None, key[0]} and name_matches(key[1], query.name)
    )


def copy_in_parts(replica: Replica, keys: Iterable[Key], owner: str | None) -> Iterator[Sequence[Service]]:
    """Yield copies of the existing services of this owner, part by part.

    Runs on the event loop.
    """
    part: list[Service] = []
    instances = 0
    for number, key in enumerate(keys, 1):
        service = replica.services.get(key)
        if service and owner in {None, *service.owners}:
            part.append((key, service.copy()))
            instances += len(service.instances)
        if number % SERVICES_PER_PART == 0 or instances >= INSTANCES_PER_PART:
            yield part
            part, instances = [], 0
    yield part


@dataclass(slots=True)
class PageBuilder:
    """A page under construction.

    `has_more` is set when the page is full and another service follows it.
    """

    query: ListQuery
    index: str
    rows: list[str] = field(default_factory=list)
    last: Key = ("", "")
    shown: int = 0
    has_more: bool = False

    def add(self, services: Iterable[Service]) -> None:
        """Add the services that come next, until the page is full."""
        filters = resolve_filters(self.query, Status.values)
        for key, service in services:
            documents = list(filter_documents(service.sorted_instances(), filters.parameters))
            if filters.narrowed and not documents:
                continue
            if self.is_full:
                self.has_more = True
                return
            self.rows.append(self.render_row(key, service, documents))
            self.shown += len(documents)
            self.last = key

    @property
    def is_full(self) -> bool:
        return len(self.rows) >= self.query.limit or (self.query.view == "full" and self.shown >= INSTANCES_PER_PAGE)

    def render_row(self, key: Key, service: ServiceEntry, documents: Iterable[bytes]) -> str:
        states = Counter((entry.state in LISTED_STATES, entry.status) for entry in service.instances.values())
        count = sum(number for (is_listed, _status), number in states.items() if is_listed)
        members = (*key, service.owners, count, states[True, Status.UP], service.protected, service.index)
        array = (b"[%b]" % b", ".join(documents)).decode() if self.query.view == "full" else None
        return render_service(members, array, self.index)

    def build_page(self, after: ListPosition | None) -> ServicePage:
        first_index = after.index if after else self.index
        following = ListPosition(first_index, *self.last) if self.has_more else None
        return ServicePage(self.index, first_index, f"[{','.join(self.rows)}]", following)
