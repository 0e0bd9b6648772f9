"""kill -9 of web processes, of PostgreSQL and of its backends, at random moments during heartbeats."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.faults.timing import count_trials
from tests.faults.trial import start_trial
from tests.server.registry import BACKENDS

pytestmark = [pytest.mark.faults, pytest.mark.timeout(540)]


@pytest.mark.short
def test_fleet_stays_listed_while_web_processes_are_killed(tmp_path: Path) -> None:
    """One of the two, also while the other one is still starting."""
    kills = count_trials(50, 6)
    with start_trial(tmp_path) as trial:
        for _ in range(kills):
            time.sleep(random.uniform(0.5, 3))
            place = random.randrange(2)
            trial.registry.web[place].kill()
            trial.registry.web[place].wait()
            trial.registry.web[place] = trial.registry.start_web(trial.registry.ports[place])
        trial.assert_fleet_stayed_listed("web process kill -9", kills)


def test_fleet_stays_listed_while_postgresql_is_killed(tmp_path: Path) -> None:
    kills = count_trials(10, 2)
    with start_trial(tmp_path) as trial:
        for _ in range(kills):
            time.sleep(random.uniform(1, 4))
            trial.registry.kill_postgres()
        trial.assert_fleet_stayed_listed("PostgreSQL kill -9", kills)


def test_fleet_stays_listed_while_backends_are_killed(tmp_path: Path) -> None:
    """PostgreSQL then ends all other backends, and recovers."""
    kills = done = count_trials(30, 4)
    with start_trial(tmp_path) as trial:
        while done:
            time.sleep(random.uniform(1, 4))
            backends = trial.registry.try_sql(BACKENDS)
            if backends:
                os.kill(random.choice(backends)[0], signal.SIGKILL)
                done -= 1
        trial.assert_fleet_stayed_listed("backend kill -9", kills)
