"""What a sweep does to leases past their deadline: it judges each by the rules, and expires or holds it."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db import connection

from service_registry import changes, metrics
from service_registry.documents import LEASE
from service_registry.expiry import candidates, evidence
from service_registry.expiry import census as counting
from service_registry.expiry.candidates import Candidate
from service_registry.expiry.census import Census
from service_registry.expiry.limits import limits
from service_registry.expiry.rules import Judgement, Verdict


@dataclass(slots=True)
class Judging:
    """One sweep's way through the leases that were due when it counted, page by page; `after` is the last one's key."""

    census: Census
    judgement: Judgement
    after: int = 0
    expired: int = 0
    protected: int = 0


def judgement(census: Census) -> Judgement:
    """The rules' judgement of `census`; services are counted only where somebody is to be judged."""
    groups = counting.groups(census) if census.asks_for_judgement else []
    return Judgement(census.cohorts, groups, census.released, limits())


def judge(judging: Judging, at_most: int) -> int:
    """Judge a page of due leases, and return how many it had.

    1. Lock them, with the whole condition repeated: whoever has beaten since the count is not among them.
    2. Judge each by its row as locked, which nobody changes until the commit.
    3. Expire or hold, and append.
    """
    found = candidates.lock(judging.census, judging.after, at_most, judging.judgement.may_let_go > 0)
    judged = [(candidate, judging.judgement.verdict(candidate.due)) for candidate in found]
    leaving = [(candidate, verdict) for candidate, verdict in judged if verdict.leaves]
    staying = [(candidate, verdict) for candidate, verdict in judged if verdict.act == "hold"]
    # Of one that another rule holds on, readers know already.
    held = [(candidate, verdict) for candidate, verdict in staying if candidate.due.held_by is None]
    expire(leaving)
    hold(staying)
    changes.append([*(evidence.expiry(*each) for each in leaving), *(evidence.protection(*each) for each in held)])
    metrics.count_holds(str(verdict.rule) for _, verdict in held)
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
UPDATE {LEASE} l SET protected_at = COALESCE(l.protected_at, statement_timestamp()), protected_by = held.rule
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
