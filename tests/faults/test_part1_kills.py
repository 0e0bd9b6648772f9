"""kill -9 of web processes, of PostgreSQL and of its backends, at random moments under a fleet that beats."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.faults.timing import trials
from tests.faults.trial import stage
from tests.server.registry import BACKENDS

pytestmark = [pytest.mark.faults, pytest.mark.timeout(540)]


@pytest.mark.short
def test_web_processes_are_killed(tmp_path: Path) -> None:
    """Either of the two, also while the other is still starting."""
    kills = trials(50, 6)
    with stage(tmp_path) as at:
        for _ in range(kills):
            time.sleep(random.uniform(0.5, 3))
            place = random.randrange(2)
            at.registry.web[place].kill()
            at.registry.web[place].wait()
            at.registry.web[place] = at.registry.start_web(at.registry.ports[place])
        at.assert_none_was_off_the_list("web process kill -9", kills)


def test_postgresql_is_killed(tmp_path: Path) -> None:
    kills = trials(10, 2)
    with stage(tmp_path) as at:
        for _ in range(kills):
            time.sleep(random.uniform(1, 4))
            at.registry.kill_postgres()
        at.assert_none_was_off_the_list("PostgreSQL kill -9", kills)


def test_backends_are_killed(tmp_path: Path) -> None:
    """PostgreSQL ends all others then, and recovers."""
    kills = done = trials(30, 4)
    with stage(tmp_path) as at:
        while done:
            time.sleep(random.uniform(1, 4))
            backends = at.registry.try_sql(BACKENDS)
            if backends:
                os.kill(random.choice(backends)[0], signal.SIGKILL)
                done -= 1
        at.assert_none_was_off_the_list("backend kill -9", kills)
