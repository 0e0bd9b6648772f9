"""The evidence that stands with what the sweep has done to an instance: by which facts, and by which rules."""

import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from service_registry.changelog import NewChange
from service_registry.choices import ChangeKind, Rule
from service_registry.expiry.due_leases import Candidate
from service_registry.expiry.limits import limits
from service_registry.expiry.rules import Verdict

ACTOR = "system:sweep"


def process() -> str:
    """Which process swept: its machine and its id there."""
    return f"{socket.gethostname()}:{os.getpid()}"


def expiry(candidate: Candidate, verdict: Verdict) -> NewChange:
    return event(
        ChangeKind.EXPIRED, candidate, verdict, f"no heartbeat before the deadline{after_hold(candidate, verdict)}"
    )


def after_hold(candidate: Candidate, verdict: Verdict) -> str:
    if verdict.released:
        return ", and an operator has released the service"
    return ", nor while it was protected" if candidate.due.held_by else ""


def protection(candidate: Candidate, verdict: Verdict) -> NewChange:
    reason = f"no heartbeat before the deadline; protected by the rule {verdict.rule}"
    return event(ChangeKind.PROTECTED, candidate, verdict, reason)


def event(kind: ChangeKind, candidate: Candidate, verdict: Verdict, reason: str) -> NewChange:
    return NewChange(
        kind,
        candidate.namespace,
        candidate.service_name,
        ACTOR,
        candidate.instance_id,
        candidate.pk,
        reason=reason,
        evidence={
            "heartbeat_at": rfc3339(candidate.heartbeat_at),
            "deadline": rfc3339(candidate.deadline),
            "window_started_at": rfc3339(candidate.window_started_at),
            "swept_at": rfc3339(candidate.swept_at),
            "ttl_seconds": candidate.due.ttl_seconds,
            "process": process(),
            "rules": list(holds(candidate, verdict)),
        }
        | ({"released": True} if verdict.released else {}),
    )


def holds(candidate: Candidate, verdict: Verdict) -> Iterator[dict[str, Any]]:
    """The rules that were looked at; `until` when one holds, or did, and `before` when more were counted before."""
    for finding in verdict.findings:
        yield {
            "rule": finding.rule,
            "counted": round(finding.counted, 1),
            "limit": round(finding.limit, 1),
            "protected_until": until(candidate, finding.rule) if finding.holds else None,
        } | ({"exceeded_earlier": True} if finding.before else {})


def until(candidate: Candidate, rule: Rule) -> str:
    """When a hold of this lease by `rule` ends."""
    return rfc3339(candidate.held_from + timedelta(seconds=limits().seconds(rule)))


def rfc3339(moment: datetime) -> str:
    """In UTC with microseconds, as the texts of times that the database makes."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
