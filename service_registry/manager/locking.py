"""Row locks that the operations share, in the one lock order."""

from service_registry.sql import INSTANCE, LEASE


def lock_instances(strength: str) -> str:
    """Return CTEs that lock the rows of `wanted(service_id, instance_id)`.

    They are `locked` and `leased`. All instances are locked before any lease, because PostgreSQL computes the array
    in the subquery first. A heartbeat locks a lease alone: a statement that locked instances and leases in turn
    would deadlock with it.

    Args:
        strength: of both locks, "UPDATE" or "NO KEY UPDATE".
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
