"""The database's clock jumps, and jumps back."""

from pathlib import Path

import pytest

from registry_project.devstack.postgres import Server
from tests.faults.test_part3_clocks import fake_clock, set_clock_off
from tests.faults.timing import count_trials
from tests.faults.trial import split_in_three, start_trial
from tests.server.registry import Registry

pytestmark = [pytest.mark.faults, pytest.mark.timeout(540)]


class ServerWithFakeClock(Server):
    """A PostgreSQL whose clock can be set."""

    def command(self, programs: Path) -> list[str]:
        command = super().command(programs)
        program = command.index(str(programs / "postgres"))
        clock = self.directory.parent / "database-clock"
        variables = [f"{name}={value}" for name, value in fake_clock(clock).items()]
        return [*command[:program], "env", *variables, *command[program:]]


class RegistryWithFakeClock(Registry):
    server = ServerWithFakeClock


@pytest.mark.parametrize(("seconds", "size"), [(60, 300), (60, 2), (-60, 2), (8, 2)])
def test_fleet_stays_listed_while_the_clock_of_the_database_jumps(tmp_path: Path, seconds: int, size: int) -> None:
    """At 60 s the processes consider their own clocks wrong and respond 503; at 8 s they continue."""
    with start_trial(
        tmp_path, split_in_three(size), per_host=5 if size > 2 else 1, registry_class=RegistryWithFakeClock
    ) as trial:
        set_clock_off(trial.registry.postgres.directory.parent / "database-clock", seconds, count_trials(3, 1))
        trial.assert_fleet_stayed_listed(f"database clock {seconds:+d} s", 2)
