"""Deliberate mistakes that the suite must catch: `make faults DEFECT=name` runs the part that must fail with it.

A mistake is made in the started processes alone, by settings that only tests know.
"""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Defect:
    """`caught_by` is the test that must fail, and `says` what it must say: that anything fails proves nothing."""

    what: str
    caught_by: str
    says: str


PARTS = "tests/faults"
DEFECTS = {
    "select-then-update": Defect(
        "the sweep selects ids, and then expires by id",
        f"{PARTS}/test_part10_frozen_sweeps.py::"
        "test_whoever_beats_while_a_sweep_is_frozen_over_the_due_is_not_taken_off",
        "assert evicted == []",
    ),
    "no-window": Defect(
        "deadlines count also the time in which no heartbeat could be received",
        f"{PARTS}/test_part2_stops.py::"
        "test_postgresql_is_stopped_for_ten_ttls_and_clients_only_beat_at_their_interval[2]",
        "assert dict(self.checker.expired) == {}",
    ),
    "unlocked-ids": Defect(
        "changes get their ids without the lock",
        f"{PARTS}/test_part4_races.py::test_a_reader_of_the_log_overlooks_nothing",
        "assert overlooked == set()",
    ),
    "gap-window": Defect(
        "the sweep's own gaps restart the window",
        f"{PARTS}/test_part5_deaths.py::test_ten_die_and_so_does_the_worker",
        "assert still_listed == set()",
    ),
    "failing-beats": Defect(
        "heartbeats are answered with 500 from some moment on",
        f"{PARTS}/test_part10_frozen_sweeps.py::test_the_sweep_is_frozen[2]",
        "<= ANSWERS",
    ),
    "endless-protection": Defect(
        "protection has no end",
        f"{PARTS}/test_part11_small_fleets.py::test_a_small_fleet_dies_whole[3]",
        "assert still_listed == set()",
    ),
}


def variables() -> dict[str, str]:
    """What makes the started processes run with the defect that `FAULTS_DEFECT` names, if it names one."""
    name = os.environ.get("FAULTS_DEFECT")
    if not name:
        return {}
    assert name in DEFECTS, f"no such defect; there are: {', '.join(DEFECTS)}"
    return {"DJANGO_SETTINGS_MODULE": "tests.faults.defects.settings"}
