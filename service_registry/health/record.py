"""Record results: the standing of each instance, and a change where readers see a difference."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from service_registry import changelog, manager
from service_registry.caller import Caller
from service_registry.choices import ChangeKind, Health
from service_registry.database.base import prepared_cursor
from service_registry.database.transactions import write_transaction
from service_registry.health.due import DueCheck
from service_registry.health.result import Result
from service_registry.health.standing import Standing, Thresholds, judge
from service_registry.manager.batch import Submission
from service_registry.schemas import Heartbeat
from service_registry.sql import HEALTH_STANDING, INSTANCE, LEASE

ACTOR = "registry:health"


@dataclass(frozen=True, slots=True)
class CheckRun:
    """A check that was run. `seconds` is how long it took."""

    due: DueCheck
    result: Result
    seconds: float


# Locks the instances, then their leases: where a status changes, a change is appended.
LOCK = f"""
WITH locked AS MATERIALIZED (
    SELECT i.id FROM {INSTANCE} i WHERE i.id = ANY (%s::bigint[]) ORDER BY i.id FOR NO KEY UPDATE OF i {{skip}}
)
SELECT l.instance_id FROM {LEASE} l WHERE l.instance_id = ANY ((SELECT array_agg(id) FROM locked)::bigint[])
ORDER BY l.instance_id FOR NO KEY UPDATE OF l {{skip}}
"""

READ = f"""
SELECT l.instance_id, extract(epoch FROM statement_timestamp())::float8, l.epoch = h.epoch,
    i.health, h.failures, h.better, h.better_since, h.improved_at, h.flapping
FROM unnest(%s::bigint[], %s::bigint[], %s::float8[]) AS run(instance_id, epoch, claimed_at)
JOIN {LEASE} l ON l.instance_id = run.instance_id AND l.epoch = run.epoch
JOIN {INSTANCE} i ON i.id = run.instance_id AND i.health_check IS NOT NULL
JOIN {HEALTH_STANDING} h ON h.instance_id = run.instance_id
-- A result is recorded once, also where the transaction is repeated, and not behind a newer one. A time in the future
-- is that of a clock that has been set back.
WHERE (h.checked_at BETWEEN to_timestamp(run.claimed_at) AND statement_timestamp()) IS NOT TRUE
"""
# Locks the standings in the order of their keys, behind their instances.
LOCK_AND_READ = f"""{READ}
ORDER BY h.instance_id FOR NO KEY UPDATE OF h {{skip}}
"""

WRITE = f"""
-- Locks nothing new.
WITH run AS (
    SELECT * FROM jsonb_to_recordset(%s) AS run(instance_id bigint, epoch bigint, status text, failures int,
        better int, better_since float8, improved_at float8, flapping boolean, level text, cause text, output text,
        seconds float8, changed boolean)
),
instance AS (
    UPDATE {INSTANCE} i SET health = run.status
    FROM run WHERE run.changed AND i.id = run.instance_id
),
lease AS (
    UPDATE {LEASE} l SET check_failing = run.status = '{Health.CRITICAL}'
    FROM run WHERE run.changed AND l.instance_id = run.instance_id AND l.check_failing IS NOT NULL
)
UPDATE {HEALTH_STANDING} h
SET epoch = run.epoch, failures = run.failures, better = run.better,
    better_since = run.better_since, improved_at = run.improved_at, flapping = run.flapping,
    checked_at = statement_timestamp(), level = run.level, cause = run.cause, output = run.output, seconds = run.seconds
FROM run WHERE h.instance_id = run.instance_id
"""


@dataclass(frozen=True, slots=True)
class Judged:
    """A result with the standing before and after it."""

    run: CheckRun
    before: Standing
    after: Standing

    @property
    def changed(self) -> bool:
        return self.before.status != self.after.status


def record(runs: Sequence[CheckRun], *, skip_locked: bool = False) -> int:
    """Record results, at most one for an instance, and count the changes.

    A result is dropped where another process has registered meanwhile: the epoch is another one.

    Args:
        skip_locked: drop the results whose rows another transaction has locked, instead of waiting a second for it.
            One row that is locked for long would take the results of all others with it.

    1. Judge without locks, to know which instances change. They are few.
    2. In one transaction, lock these instances and their leases, then all standings, and judge again. What changes only
       now, since another checker has recorded meanwhile, waits for the next result.
    3. Write, and append under the change lock.
    """
    by_pk = {run.due.instance_pk: run for run in runs}
    skip = "SKIP LOCKED" if skip_locked else ""
    expected = [pk for pk, judged in judge_all(by_pk, READ).items() if judged.changed]
    with write_transaction(lock_timeout="1s", synchronous_commit="off"):
        if expected:
            with prepared_cursor() as cursor:
                cursor.execute(LOCK.format(skip=skip), [expected])
                expected = [pk for (pk,) in cursor.fetchall()]
        judged = judge_all(by_pk, LOCK_AND_READ.format(skip=skip))
        rows = [each for pk, each in judged.items() if not each.changed or pk in expected]
        with prepared_cursor() as cursor:
            cursor.execute(WRITE, [json.dumps([to_row(each) for each in rows])])
        changed = [each for each in rows if each.changed]
        changelog.append_changes([to_change(each) for each in changed])
    return len(changed)


def judge_all(runs: Mapping[int, CheckRun], query: str) -> dict[int, Judged]:
    """Return each run with its standing as the query reads it, by primary key."""
    with prepared_cursor() as cursor:
        columns = [(run.due.epoch, run.due.claimed_at) for run in runs.values()]
        cursor.execute(query, [list(runs), *map(list, zip(*columns, strict=True))])
        rows = cursor.fetchall()
    judged = {}
    for pk, now, same_epoch, status, *rest in rows:
        run = runs[pk]
        before = Standing(Health(status), *rest) if same_epoch else Standing(Health(status))
        thresholds = Thresholds(run.due.check["healthy_after"], run.due.check["unhealthy_after"])
        judged[pk] = Judged(run, before, judge(before, run.result.level, now, thresholds))
    return judged


def to_row(judged: Judged) -> dict[str, object]:
    run = judged.run
    return asdict(judged.after) | {
        "instance_id": run.due.instance_pk,
        "epoch": run.due.epoch,
        "level": run.result.level,
        "cause": run.result.cause,
        "output": run.result.output,
        "seconds": run.seconds,
        "changed": judged.changed,
    }


def to_change(judged: Judged) -> changelog.NewChange:
    """Return the change of health. The status changes with it where health becomes critical, or was."""
    due, result = judged.run.due, judged.run.result
    status_changes = Health.CRITICAL in {judged.before.status, judged.after.status}
    return changelog.NewChange(
        ChangeKind.HEALTH_CHANGED,
        due.namespace,
        due.service_name,
        ACTOR,
        due.instance_id,
        due.instance_pk,
        changed=["health", "status"] if status_changes else ["health"],
        reported=status_changes,
        evidence={
            "type": due.check["type"],
            "cause": result.cause,
            "failures": judged.after.failures,
            "flapping": judged.after.flapping,
        },
    )


def renew(runs: Sequence[CheckRun]) -> None:
    """Renew the leases of instances whose check renews and has passed, as their own heartbeats do."""
    passed = [run.due for run in runs if run.due.check["renews"] and run.result.level is not Health.CRITICAL]
    if passed:
        manager.heartbeat_for_callers(
            [
                Submission(
                    Heartbeat(
                        namespace=due.namespace,
                        service_name=due.service_name,
                        instance_id=due.instance_id,
                        epoch=due.epoch,
                    ),
                    Caller(ACTOR, frozenset(due.owners), frozenset()),
                )
                for due in passed
            ],
            lock_timeout="1s",
        )
