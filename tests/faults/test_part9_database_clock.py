"""A clock of the database that jumps, there and back."""

from pathlib import Path

import pytest

from registry_project.devstack.postgres import Server
from tests.faults.test_part3_clocks import faked, jump
from tests.faults.timing import trials
from tests.faults.trial import in_three, stage
from tests.server.registry import Registry

pytestmark = [pytest.mark.faults, pytest.mark.timeout(540)]


class FakedServer(Server):
    """A PostgreSQL whose clock can be set."""

    def command(self, programs: Path) -> list[str]:
        command = super().command(programs)
        program = command.index(str(programs / "postgres"))
        clock = self.directory.parent / "database-clock"
        variables = [f"{name}={value}" for name, value in faked(clock).items()]
        return [*command[:program], "env", *variables, *command[program:]]


class WithFakedServer(Registry):
    server = FakedServer


@pytest.mark.parametrize(("seconds", "size"), [(60, 300), (60, 2), (-60, 2), (8, 2)])
def test_the_databases_clock_jumps(tmp_path: Path, seconds: int, size: int) -> None:
    """There and back. At 60 s the processes call their own clocks wrong, and refuse; at 8 s they go on."""
    with stage(tmp_path, in_three(size), per_host=5 if size > 2 else 1, running=WithFakedServer) as at:
        jump(at.registry.postgres.directory.parent / "database-clock", seconds, trials(3, 1))
        at.assert_none_was_off_the_list(f"database clock {seconds:+d} s", 2)
