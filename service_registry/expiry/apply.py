"""What a sweep does to leases past their deadline: it judges each by the rules, and expires or holds it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from django.db import connection

from service_registry import changelog, metrics
from service_registry.expiry import counts as counting
from service_registry.expiry import due_leases, evidence
from service_registry.expiry.counts import Census
from service_registry.expiry.due_leases import Candidate
from service_registry.expiry.limits import limits
from service_registry.expiry.rules import Judgement, Verdict, may_be_crowded
from service_registry.sql import LEASE, STATE


@dataclass(slots=True)
class Judging:
    """One sweep's way through the leases that were due when it counted, page by page; `after` is the last one's key."""

    census: Census
    judgement: Judgement
    after: int = 0
    expired: int = 0
    protected: int = 0

    def verdict(self, candidate: Candidate) -> Verdict:
        return self.judgement.verdict(candidate.due, candidate.due.service in self.census.released)


def judgement(census: Census) -> Judgement:
    """The rules' judgement of `census`; services are counted only where anything depends on them."""
    allowed = limits()
    depends = census.asks_for_judgement or may_be_crowded(census.cohorts, allowed)
    return Judgement(census.now, census.cohorts, counting.groups(census) if depends else [], census.crowds, allowed)


KEEP_CROWDS = f"""
-- Locks the state's row. No other sweep writes this: the caller's transaction has the sweep's lock.
UPDATE {STATE} SET exceeded_limits = %s WHERE id = 1
"""


def keep_crowds(judging: Judging) -> None:
    """Write down for the next sweep whether too many were late in this one."""
    if judging.judgement.crowds != judging.census.crowds:
        crowds = {ttl_seconds: [seen.rule, seen.seen_at] for ttl_seconds, seen in judging.judgement.crowds.items()}
        with connection.cursor() as cursor:
            cursor.execute(KEEP_CROWDS, [json.dumps(crowds)])


def judge(judging: Judging, at_most: int) -> int:
    """Judge a page of due leases, and return how many it had.

    1. Lock them, with the whole condition repeated: whoever has beaten since the count is not among them.
    2. Judge each by its row as locked, which nobody changes until the commit.
    3. Expire or hold, and append.
    """
    found = due_leases.lock(judging.census, judging.after, at_most, judging.judgement.may_let_go > 0)
    judged = [(candidate, judging.verdict(candidate)) for candidate in found]
    leaving = [(candidate, verdict) for candidate, verdict in judged if verdict.leaves]
    staying = [(candidate, verdict) for candidate, verdict in judged if verdict.act == "hold"]
    # Of one that another rule holds on, readers know already.
    held = [(candidate, verdict) for candidate, verdict in staying if candidate.due.held_by is None]
    expire(leaving)
    hold(staying)
    changelog.append_changes(
        [*(evidence.expiry(*each) for each in leaving), *(evidence.protection(*each) for each in held)]
    )
    metrics.count_protections(str(verdict.rule) for _, verdict in held)
    judging.after = found[-1].pk if found else judging.after
    judging.expired += len(leaving)
    judging.protected += len(held)
    return len(found)


EXPIRE = f"""
-- Locks nothing new: these leases are locked, and were judged by their rows as they are.
UPDATE {LEASE} SET expired_at = statement_timestamp(), protected_at = NULL WHERE instance_id = ANY (%s::bigint[])
"""
HOLD = f"""
-- Locks nothing new: these leases are locked, and were judged by their rows as they are.
-- A hold goes on from when it was first given; LEAST ignores a null, and mends a time to come.
UPDATE {LEASE} l SET protected_at = LEAST(l.protected_at, statement_timestamp()), protected_by = held.rule
FROM unnest(%s::bigint[], %s::text[]) AS held(pk, rule) WHERE l.instance_id = held.pk
"""


def expire(leaving: Sequence[tuple[Candidate, Verdict]]) -> None:
    if leaving:
        with connection.cursor() as cursor:
            cursor.execute(EXPIRE, [[candidate.pk for candidate, _ in leaving]])


def hold(staying: Sequence[tuple[Candidate, Verdict]]) -> None:
    if staying:
        pks, rules = [candidate.pk for candidate, _ in staying], [verdict.rule for _, verdict in staying]
        with connection.cursor() as cursor:
            cursor.execute(HOLD, [pks, rules])
