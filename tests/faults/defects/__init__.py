"""Seeded defects that the fault tests must catch: `make faults DEFECT=name` runs the test that must fail.

Only the started processes have the defect, by settings that only tests use.
"""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Defect:
    """A defect, the test that must fail with it, and the output of that: another failure would prove nothing."""

    description: str
    caught_by: str
    output: str


PARTS = "tests/faults"
DEFECTS = {
    "select-then-update": Defect(
        "the sweep selects ids, and then expires by id",
        f"{PARTS}/test_part10_frozen_sweeps.py::test_heartbeat_during_a_frozen_sweep_prevents_expiry",
        "assert evicted == []",
    ),
    "no-window": Defect(
        "deadlines count also the time in which no heartbeat could be received",
        f"{PARTS}/test_part2_stops.py::test_fleet_without_retries_stays_listed_after_postgresql_was_stopped[2]",
        "assert dict(self.checker.expired) == {}",
    ),
    "unlocked-ids": Defect(
        "changes get their ids without the lock",
        f"{PARTS}/test_part4_races.py::test_reader_of_the_log_beside_writers_overlooks_no_change",
        "assert overlooked == set()",
    ),
    "gap-window": Defect(
        "gaps between sweeps restart the observation window",
        f"{PARTS}/test_part5_ended_instances.py::test_instances_that_end_together_with_the_worker_expire_in_time",
        "assert still_listed == set()",
    ),
    "failing-heartbeats": Defect(
        "heartbeats are answered with 500 from some moment on",
        f"{PARTS}/test_part10_frozen_sweeps.py::test_fleet_stays_listed_while_sweeps_are_frozen[2]",
        "<= STATUSES",
    ),
    "endless-protection": Defect(
        "protection has no end",
        f"{PARTS}/test_part11_small_fleets.py::test_small_fleet_that_ends_expires_in_time[3]",
        "assert still_listed == set()",
    ),
}


def variables() -> dict[str, str]:
    """Return the variables that give the started processes the defect named by FAULTS_DEFECT, if any."""
    name = os.environ.get("FAULTS_DEFECT")
    if not name:
        return {}
    assert name in DEFECTS, f"no such defect; there are: {', '.join(DEFECTS)}"
    return {"DJANGO_SETTINGS_MODULE": "tests.faults.defects.settings"}
