"""The row locks that verbs share, taken in the one lock order."""

from service_registry.sql import INSTANCE, LEASE


def lock_instances(strength: str) -> str:
    """CTEs `locked` and `leased`: the rows of `wanted(service_id, instance_id)`, locked with `strength`.

    All instances are locked before any lease: the array is a subquery that PostgreSQL finishes first. A lease alone is
    what a heartbeat locks, so taking turns between instances and leases would deadlock with it.
    """
    return f"""
locked AS MATERIALIZED (
    SELECT i.* FROM {INSTANCE} i
    JOIN wanted ON wanted.service_id = i.service_id AND wanted.instance_id = i.instance_id
    ORDER BY i.id
    FOR {strength} OF i
),
leased AS MATERIALIZED (
    SELECT l.* FROM {LEASE} l
    WHERE l.instance_id = ANY ((SELECT array_agg(id) FROM locked)::bigint[])
    ORDER BY l.instance_id
    FOR {strength} OF l
)
"""
