"""What every verb does with its batch: refuse repeats, bound its transaction, try again what may be tried again."""

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from operator import attrgetter
from typing import Generic, NamedTuple, Protocol, TypeVar

from django.db import DataError, IntegrityError

from service_registry.caller import Caller
from service_registry.database.retries import with_retries
from service_registry.exceptions import InvalidInput, RegistryError
from service_registry.sql import SERVICE

Result = TypeVar("Result")


class Keyed(Protocol):
    """Anything that names an instance."""

    @property
    def namespace(self) -> str: ...
    @property
    def service_name(self) -> str: ...
    @property
    def instance_id(self) -> str: ...


Item = TypeVar("Item", bound=Keyed)
Key = tuple[str, str, str]


key_of: Callable[[Keyed], Key] = attrgetter("namespace", "service_name", "instance_id")


class Submission(NamedTuple, Generic[Item]):
    """An item and who asks for it, where a batch is of many callers."""

    item: Item
    caller: Caller

    @property
    def namespace(self) -> str:
        return self.item.namespace

    @property
    def service_name(self) -> str:
        return self.item.service_name

    @property
    def instance_id(self) -> str:
        return self.item.instance_id


def submissions_of(caller: Caller, items: Sequence[Item]) -> list[Submission[Item]]:
    return list(map(Submission, items, repeat(caller)))


# A batch as columns, a row an item. The columns are joined texts, as names hold no control characters: PostgreSQL
# splits them at once, whereas psycopg writes an array of 500 element by element, which took as long as the statement.
BETWEEN, BETWEEN_CALLERS = "\x1f", "\x1e"


def split(parameter: str) -> str:
    return f"string_to_array(%({parameter})s, E'\\x1f', '')"


# Each service stands once for each set of groups that its callers have, and each set once: there are few of them in a
# batch of many items. `ours` says whether the caller owns the service.
ASKED_SERVICES = f"""
asked_service AS MATERIALIZED (
    SELECT asked.place, s.id,
        COALESCE(
            s.owners && string_to_array((string_to_array(%(groups)s, E'\\x1e'))[asked.groups], E'\\x1f'), false) AS ours
    FROM unnest({split("namespaces")}, {split("services")}, {split("callers")}::int[])
        WITH ORDINALITY AS asked(namespace, service_name, groups, place)
    JOIN {SERVICE} s ON s.namespace = asked.namespace AND s.name = asked.service_name
)"""
# The items, each with its service's place.
ITEMS = f"{split('places')}::bigint[], {split('instances')}"


def column(values: Iterable[object]) -> str:
    """A parameter that `split` splits; None becomes null."""
    return BETWEEN.join(["" if value is None else str(value) for value in values])


def columns_of(asked: Sequence[Submission[Item]]) -> dict[str, str]:
    """The parameters of ASKED_SERVICES and ITEMS."""
    services: dict[tuple[str, str, frozenset[str]], int] = {}
    places, instances = [], []
    for item, caller in asked:
        key = item.namespace, item.service_name, caller.groups
        places.append(services.setdefault(key, len(services) + 1))
        instances.append(item.instance_id)
    distinct = dict.fromkeys(groups for _namespace, _name, groups in services)
    place_of = {groups: place for place, groups in enumerate(distinct, 1)}
    return {
        "namespaces": column(namespace for namespace, _name, _groups in services),
        "services": column(name for _namespace, name, _groups in services),
        "callers": column(place_of[groups] for _namespace, _name, groups in services),
        "groups": BETWEEN_CALLERS.join(column(sorted(groups)) for groups in place_of),
        "places": column(places),
        "instances": BETWEEN.join(instances),
    }


def each_once(
    items: Sequence[Item], run: Callable[[Sequence[Item]], list[Result | RegistryError]]
) -> list[Result | RegistryError]:
    """Run a verb over the items whose key stands for the first time; the others are refused before SQL sees them."""
    keys = list(map(key_of, items))
    first = dict(zip(reversed(keys), reversed(range(len(keys))), strict=True))
    if len(first) == len(items):
        return in_halves(items, run)
    repeats = {
        place: InvalidInput.of_field("instance_id", "repeated", f"repeats item {first[key]}")
        for place, key in enumerate(keys)
        if first[key] != place
    }
    outcomes = iter(in_halves([item for place, item in enumerate(items) if place not in repeats], run))
    return [repeats[place] if place in repeats else next(outcomes) for place in range(len(items))]


def in_halves(
    items: Sequence[Item], run: Callable[[Sequence[Item]], list[Result | RegistryError]]
) -> list[Result | RegistryError]:
    """Run a verb; when a constraint refuses a row, run it once more in halves until the row stands alone."""
    if not items:
        return []
    try:
        return with_retries(lambda: run(items))
    except (IntegrityError, DataError) as error:
        if len(items) == 1:
            return [refused_by_database(error)]
        middle = len(items) // 2
        return in_halves(items[:middle], run) + in_halves(items[middle:], run)


FIELD_OF_CONSTRAINT = {
    "instance_port": "port",
    "instance_weight": "weight",
    "instance_scheme": "scheme",
    "instance_reported_status": "status",
    "lease_ttl_seconds": "ttl_seconds",
    "service_has_owners": "owner",
}


def refused_by_database(error: Exception) -> RegistryError:
    """The domain's word for a row that a constraint refused, by the constraint's name."""
    constraint = getattr(getattr(error.__cause__, "diag", None), "constraint_name", None) or ""
    field = FIELD_OF_CONSTRAINT.get(constraint, "__all__")
    return InvalidInput.of_field(field, "refused", "the database refused this value")
