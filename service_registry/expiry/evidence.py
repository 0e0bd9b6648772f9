"""Build the changes for expired and protected instances, with facts and rules."""

import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from service_registry.changelog import NewChange
from service_registry.choices import ChangeKind, Rule
from service_registry.expiry.counts import configured_limits
from service_registry.expiry.due_leases import DueLease
from service_registry.expiry.protection import Decision

ACTOR = "system:sweep"
NO_HEARTBEAT = "no heartbeat before the deadline"


def describe_process() -> str:
    """Return the host name and the process id of this process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def build_expired_change(lease: DueLease, decision: Decision) -> NewChange:
    reason = NO_HEARTBEAT
    if decision.released:
        reason += ", and an operator has released the service"
    elif lease.due.protected_by:
        reason += ", nor while it was protected"
    return build_change(ChangeKind.EXPIRED, lease, decision, reason)


def build_protected_change(lease: DueLease, decision: Decision) -> NewChange:
    reason = f"{NO_HEARTBEAT}; protected by the rule {decision.rule}"
    return build_change(ChangeKind.PROTECTED, lease, decision, reason)


def build_change(kind: ChangeKind, lease: DueLease, decision: Decision, reason: str) -> NewChange:
    return NewChange(
        kind,
        lease.namespace,
        lease.service_name,
        ACTOR,
        lease.instance_id,
        lease.pk,
        reason=reason,
        evidence={
            "heartbeat_at": format_rfc3339(lease.heartbeat_at),
            "deadline": format_rfc3339(lease.deadline),
            "window_started_at": format_rfc3339(lease.window_started_at),
            "swept_at": format_rfc3339(lease.swept_at),
            "ttl_seconds": lease.due.ttl_seconds,
            "process": describe_process(),
            "rules": list(describe_rules(lease, decision)),
        }
        | ({"released": True} if decision.released else {}),
    )


def describe_rules(lease: DueLease, decision: Decision) -> Iterator[dict[str, Any]]:
    """Describe the rules that were evaluated.

    `protected_until` is a time when the rule protects the lease or did; `exceeded_earlier` is there when its limit was
    exceeded earlier, while the lease was late.
    """
    for result in decision.results:
        yield {
            "rule": result.rule,
            "counted": round(result.counted, 1),
            "limit": round(result.limit, 1),
            "protected_until": format_protection_end(lease, result.rule) if result.protects else None,
        } | ({"exceeded_earlier": True} if result.exceeded_earlier else {})


def format_protection_end(lease: DueLease, rule: Rule) -> str:
    """Return when `rule` stops protecting this lease."""
    return format_rfc3339(lease.protected_from + timedelta(seconds=configured_limits().seconds(rule)))


def format_rfc3339(at: datetime) -> str:
    """Format a time in UTC with microseconds, as the database formats times."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
