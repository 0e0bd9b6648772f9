"""Record which checkers run and are cut off, and count them."""

import os
import socket
from dataclasses import dataclass

from django.db.models import Count, Q

from service_registry.database.base import prepared_cursor
from service_registry.database.transactions import write_transaction
from service_registry.health_models import HealthChecker
from service_registry.models import Instance
from service_registry.sql import HEALTH_CHECKER

NAME = f"{socket.gethostname()}:{os.getpid()}"

REPORT = f"""
-- Locks the row of this checker alone.
INSERT INTO {HEALTH_CHECKER} (name, cut_off) VALUES (%s, %s)
ON CONFLICT (name) DO UPDATE SET seen_at = statement_timestamp(), cut_off = EXCLUDED.cut_off
"""
FORGET = f"""
-- Deletes the rows of checkers that were killed. Another checker may delete them at the same time.
DELETE FROM {HEALTH_CHECKER} WHERE name IN (
    SELECT name FROM {HEALTH_CHECKER} WHERE seen_at < statement_timestamp() - interval '1 hour' FOR UPDATE SKIP LOCKED
)
"""
LEAVE = f"DELETE FROM {HEALTH_CHECKER} WHERE name = %s"


def report(*, cut_off: bool) -> None:
    """Report that this checker runs."""
    with write_transaction(lock_timeout="1s", synchronous_commit="off"), prepared_cursor() as cursor:
        cursor.execute(REPORT, [NAME, cut_off])
        cursor.execute(FORGET)


def leave() -> None:
    """Report that this checker ends."""
    with write_transaction(lock_timeout="1s", synchronous_commit="off"), prepared_cursor() as cursor:
        cursor.execute(LEAVE, [NAME])


@dataclass(frozen=True, slots=True)
class Presence:
    """The numbers of checked instances, of running checkers, and of those that are cut off."""

    instances: int
    checkers: int
    cut_off: int

    @property
    def failure(self) -> str:
        """The reason why health does not change; empty where checkers run, or nothing is checked."""
        if not self.instances:
            return ""
        if not self.checkers:
            return "no checker runs: no health changes"
        if self.cut_off:
            return f"{self.cut_off} of {self.checkers} are cut off: failures of their checks count for nothing"
        return ""


def read_presence() -> Presence:
    found = HealthChecker.objects.present().aggregate(checkers=Count("pk"), cut_off=Count("pk", filter=Q(cut_off=True)))
    return Presence(Instance.objects.checked().count(), **found)
