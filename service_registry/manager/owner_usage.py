"""The usage of each owner: what it has, counted so that no race passes a quota.

A row has an upper bound of the owner's instances and services. Only what adds to them writes it; what goes is noticed
when the bound reaches a limit and the owner is counted again. So heartbeats, repeated registrations and deregistrations
do not touch it.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from django.db import connection

from service_registry.database.base import prepared_cursor
from service_registry.sql import INSTANCE, OVERRIDE, OWNER_USAGE, SERVICE

RESERVE = f"""
-- Locks the rows of the owners, in the order of their names, until the transaction ends. A new row is not counted yet.
INSERT INTO {OWNER_USAGE} AS u (owner, instances, services, counted)
SELECT item.owner, item.instances, item.services, false
FROM unnest((SELECT %s::text[]), (SELECT %s::bigint[]), (SELECT %s::bigint[])) AS item(owner, instances, services)
ORDER BY item.owner COLLATE "C"
ON CONFLICT (owner) DO UPDATE
SET instances = u.instances + excluded.instances, services = u.services + excluded.services
RETURNING u.owner, u.instances, u.services, u.counted
"""
COUNT_OF_OWNERS = f"""
-- Locks nothing. One subquery per service, which reads the index: a join would read the whole table.
SELECT owner.name, (
    SELECT COALESCE(sum(counted.instances), 0)::bigint FROM {SERVICE} s
    CROSS JOIN LATERAL (SELECT count(*) AS instances FROM {INSTANCE} i WHERE i.service_id = s.id) AS counted
    WHERE s.owners @> ARRAY[owner.name]),
    (SELECT count(*) FROM {SERVICE} s WHERE s.owners @> ARRAY[owner.name])
FROM unnest(%s::text[]) AS owner(name)
"""
STORE = f"""
-- Locks nothing new: RESERVE has locked these rows.
UPDATE {OWNER_USAGE} u SET instances = item.instances, services = item.services, counted = true
FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS item(owner, instances, services) WHERE u.owner = item.owner
"""
FORGET = f"""
-- Locks the rows of the owners, in the order of their names. Rows that are missing are inserted, because a registration
-- that counts an owner at the same moment has to wait.
INSERT INTO {OWNER_USAGE} (owner, instances, services, counted)
SELECT item.owner, 0, 0, false FROM unnest(%s::text[]) AS item(owner) ORDER BY item.owner COLLATE "C"
ON CONFLICT (owner) DO UPDATE SET counted = false
"""
COUNT_OF_SPARE_OVERRIDES = f"""
-- Locks nothing.
SELECT owner.name, (
    SELECT count(*) FROM {SERVICE} s JOIN {OVERRIDE} o ON o.service_id = s.id
    WHERE s.owners @> ARRAY[owner.name]
        AND NOT EXISTS (SELECT FROM {INSTANCE} i WHERE i.service_id = s.id AND i.instance_id = o.instance_id))
FROM unnest(%s::text[]) AS owner(name)
"""


@dataclass(frozen=True, slots=True)
class Usage:
    """The instances and services of an owner: an upper bound unless they were just counted."""

    instances: int
    services: int


def reserve(
    instances: Mapping[str, int], services: Mapping[str, int], limits: Usage
) -> tuple[dict[str, Usage], set[str]]:
    """Lock the usage of owners, and add what this transaction is about to insert.

    1. Lock the rows. Another transaction that adds to one of these owners has committed, or waits for this one.
    2. Count the owners that may pass a limit in a separate statement, which sees what was committed while 1 waited.

    Args:
        instances: the number of instances to insert, by owner. They are not inserted yet.
        services: the number of services that this transaction has inserted, by owner of instances.
        limits: an owner is counted when its bound passes one of them.

    Returns:
        The usage of each owner without what is added; and the owners that were counted, for `store`.
    """
    owners = list(instances)
    with prepared_cursor() as cursor:
        cursor.execute(RESERVE, [owners, list(instances.values()), [services.get(owner, 0) for owner in owners]])
        rows = cursor.fetchall()
        usage = {
            owner: Usage(bound - instances[owner], of_services - services.get(owner, 0))
            for owner, bound, of_services, _counted in rows
        }
        inexact = {
            owner
            for owner, bound, of_services, counted in rows
            if not counted or bound > limits.instances or of_services > limits.services
        }
        if inexact:
            cursor.execute(COUNT_OF_OWNERS, [sorted(inexact)])
            for owner, exact, of_services in cursor.fetchall():
                usage[owner] = Usage(exact, of_services - services.get(owner, 0))
    return usage, inexact


def store(usage: Mapping[str, Usage]) -> None:
    """Store the exact usage of owners that this transaction has locked and counted."""
    if usage:
        instances, services = zip(*((each.instances, each.services) for each in usage.values()), strict=True)
        with connection.cursor() as cursor:
            cursor.execute(STORE, [list(usage), list(instances), list(services)])


def forget(owners: Collection[str]) -> None:
    """Have owners counted again when they next register something: they were given a service."""
    with connection.cursor() as cursor:
        cursor.execute(FORGET, [sorted(owners)])


def count_spare_overrides(owners: Iterable[str]) -> Counter[str]:
    """Lock the usage of owners, and count the overrides of their instances that are not registered."""
    names = sorted(set(owners))
    nothing = [0] * len(names)
    with connection.cursor() as cursor:
        cursor.execute(RESERVE, [names, nothing, nothing])
        cursor.execute(COUNT_OF_SPARE_OVERRIDES, [names])
        return Counter(dict(cursor.fetchall()))
