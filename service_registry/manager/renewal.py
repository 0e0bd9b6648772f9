"""Renew leases without waiting for locks: SQL and lease members that heartbeats and registrations share."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from service_registry.sql import STATE, grace_seconds, rfc3339

# The times that all leases of one statement share, formatted once.
RENEWAL_TIMES = f"""
    renewal.at, {rfc3339("renewal.at")} AS heartbeat_at,
    {rfc3339("GREATEST(renewal.at, r.window_started_at)")} AS counted_from
"""

# The time of a renewal, for a statement that has locked the leases that it renews.
RENEWAL = f"""
renewal AS MATERIALIZED (SELECT {RENEWAL_TIMES} FROM clock_timestamp() AS renewal(at), {STATE} r)"""

# The same, for a statement that renews only where readers see no difference. It locks leases in any order, because it
# waits for none: those that another transaction has locked are left out. Where the other has committed since the
# statement began, PostgreSQL checks the conditions on the lease again. An instance that has changed meanwhile counts as
# renewed before.
# A crash may take the renewal back: the next call of the instance restores it.
UNCHANGED_RENEWAL = f"""
renewal AS MATERIALIZED (
    SELECT {RENEWAL_TIMES}
    FROM clock_timestamp() AS renewal(at), set_config('synchronous_commit', 'off', true), {STATE} r
)"""
LOCK_UNLOCKED = "FOR NO KEY UPDATE OF l SKIP LOCKED"


def lease_members(document: Mapping[str, Any], heartbeat_at: str, counted_from: str) -> dict[str, Any]:
    """Return the lease of an instance after this renewal.

    Args:
        document: the instance.
        counted_from: the time from which the deadline counts; both times as in RFC 3339.
    """
    return common_members(document["ttl_seconds"], heartbeat_at, counted_from) | {"epoch": document["epoch"]}


def common_members(ttl_seconds: int | None, heartbeat_at: str, counted_from: str) -> dict[str, Any]:
    """Return the members that all leases of one TTL, or all permanent ones, share after this renewal."""
    if ttl_seconds is None:
        return {
            "heartbeat_at": heartbeat_at,
            "expires_at": None,
            "heartbeat_interval_seconds": None,
            "ttl_seconds": None,
        }
    expires_at = datetime.fromisoformat(counted_from) + timedelta(seconds=grace_seconds(ttl_seconds))
    return {
        "heartbeat_at": heartbeat_at,
        "expires_at": expires_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "heartbeat_interval_seconds": round(ttl_seconds * 1000 / 3) / 1000,
        "ttl_seconds": ttl_seconds,
    }
