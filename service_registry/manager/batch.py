"""Helpers of batch operations: repeated keys, columns for SQL, refused rows.

They refuse repeated keys, pass items to SQL as columns, and single out the row that a constraint refuses.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from operator import attrgetter
from typing import Generic, NamedTuple, Protocol, TypeVar

from django.db import DataError, IntegrityError

from service_registry.caller import Caller
from service_registry.database.transactions import with_retries
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
    """An item with its caller, in a batch of many callers."""

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


# The columns of a batch go to PostgreSQL as joined strings, which it splits at once. Names contain no control
# characters, so that two of these can separate them. psycopg writes an array of 500 element by element, which took as
# long as the statement itself.
SEPARATOR, SET_SEPARATOR = "\x1f", "\x1e"


def split_parameter(name: str) -> str:
    """Return the SQL expression that splits the parameter `name` into a column.

    The subquery hides the length of the column from the planner. It would take plans for the actual lengths for better,
    and plan each batch anew, which takes longer than to run it.
    """
    return f"string_to_array((SELECT %({name})s::text), E'\\x1f', '')"


# Each service is sent once for each set of groups of its callers, and each set of groups once: a large batch has few of
# them. `owned` is whether the caller owns the service.
REQUESTED_SERVICES = f"""
requested_service AS MATERIALIZED (
    SELECT requested.number, s.id, s.namespace, s.name, s.owners,
        COALESCE(
            s.owners && string_to_array((string_to_array(%(group_sets)s, E'\\x1e'))[requested.group_set], E'\\x1f'),
            false) AS owned
    FROM unnest({split_parameter("namespaces")}, {split_parameter("services")},
            {split_parameter("group_set_numbers")}::int[])
        WITH ORDINALITY AS requested(namespace, service_name, group_set, number)
    JOIN {SERVICE} s ON s.namespace = requested.namespace AND s.name = requested.service_name
)"""
# The arguments of `unnest` that give the items: the number of the item's service, and its instance id.
ITEM_COLUMNS = f"{split_parameter('service_numbers')}::bigint[], {split_parameter('instance_ids')}"


def join_column(values: Iterable[object]) -> str:
    """Return the parameter that `split_parameter` splits. None and '' become null."""
    return SEPARATOR.join(["" if value is None else str(value) for value in values])


def join_optional_column(values: Sequence[object | None]) -> str:
    """Return the parameter that `split_parameter` splits; without a value, that of an empty column.

    `unnest` fills a short column with nulls.
    """
    return "" if all(value is None for value in values) else join_column(values)


def join_columns(submissions: Sequence[Submission[Item]]) -> dict[str, str]:
    """Return the parameters of REQUESTED_SERVICES and ITEM_COLUMNS."""
    services: dict[tuple[str, str, frozenset[str]], int] = {}
    service_numbers, instance_ids = [], []
    for item, caller in submissions:
        key = item.namespace, item.service_name, caller.groups
        service_numbers.append(services.setdefault(key, len(services) + 1))
        instance_ids.append(item.instance_id)
    group_sets = dict.fromkeys(groups for _namespace, _name, groups in services)
    number_of = {groups: number for number, groups in enumerate(group_sets, 1)}
    return {
        "namespaces": join_column(namespace for namespace, _name, _groups in services),
        "services": join_column(name for _namespace, name, _groups in services),
        "group_set_numbers": join_column(number_of[groups] for _namespace, _name, groups in services),
        "group_sets": SET_SEPARATOR.join(join_column(sorted(groups)) for groups in group_sets),
        "service_numbers": join_column(service_numbers),
        "instance_ids": SEPARATOR.join(instance_ids),
    }


def run_batch(
    items: Sequence[Item], run: Callable[[Sequence[Item]], list[Result | RegistryError]]
) -> list[Result | RegistryError]:
    """Run an operation once for each key, by its first item, and refuse the repeats.

    The repeats are refused before SQL sees them, because ON CONFLICT cannot touch a row twice.

    Args:
        items: the batch.
        run: runs the operation in one transaction, and returns one outcome per item.
    """
    keys = list(map(key_of, items))
    first = dict(zip(reversed(keys), reversed(range(len(keys))), strict=True))
    if len(first) == len(items):
        return run_in_halves(items, run)
    repeats = {
        position: InvalidInput.of_field("instance_id", "repeated", f"repeats item {first[key]}")
        for position, key in enumerate(keys)
        if first[key] != position
    }
    outcomes = iter(run_in_halves([item for position, item in enumerate(items) if position not in repeats], run))
    return [repeats[position] if position in repeats else next(outcomes) for position in range(len(items))]


def run_in_halves(
    items: Sequence[Item], run: Callable[[Sequence[Item]], list[Result | RegistryError]]
) -> list[Result | RegistryError]:
    """Run an operation, and single out the rows that a constraint refuses.

    Where a constraint refuses a row, each half is run again, down to the row alone.
    """
    if not items:
        return []
    try:
        return with_retries(lambda: run(items))
    except (IntegrityError, DataError) as error:
        if len(items) == 1:
            return [translate_constraint_error(error)]
        middle = len(items) // 2
        return run_in_halves(items[:middle], run) + run_in_halves(items[middle:], run)


FIELD_OF_CONSTRAINT = {
    "instance_port": "port",
    "instance_weight": "weight",
    "instance_scheme": "scheme",
    "instance_reported_status": "status",
    "lease_ttl_seconds": "ttl_seconds",
    "service_owner_count": "owner",
}


def translate_constraint_error(error: Exception) -> InvalidInput:
    """Translate the error of a refused row by the name of its constraint."""
    constraint = getattr(getattr(error.__cause__, "diag", None), "constraint_name", None) or ""
    field = FIELD_OF_CONSTRAINT.get(constraint, "__all__")
    return InvalidInput.of_field(field, "refused", "the database refused this value")
