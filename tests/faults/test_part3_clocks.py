"""Wall clocks of the registry's processes that are an hour off, and a killed broker."""

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from registry_project.devstack.processes import free_port
from tests.faults.timing import TTL_SECONDS, count_trials
from tests.faults.trial import Trial, start_trial
from tests.server.registry import Registry
from tests.waiting import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(540)]

LIBRARIES = (*Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), Path("/usr/lib/faketime/libfaketimeMT.so.1"))
HOUR = 3600


def fake_clock(clock: Path) -> dict[str, str]:
    """Return the environment of a process whose wall clock is off by the seconds in the file `clock`.

    It reads the file every second. Its monotonic clock stays right.
    """
    found = [library for library in LIBRARIES if library.exists()]
    assert found, "libfaketime is missing; on Debian, as root: apt-get install faketime"
    clock.write_text("+0")
    clock.chmod(0o644)
    return {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def set_clock_off(clock: Path, seconds: int, ttls: int) -> None:
    """Set a clock off for some TTLs, and then right again."""
    clock.write_text(f"{seconds:+d}")
    time.sleep(ttls * TTL_SECONDS)
    clock.write_text("+0")


def responds_503(trial: Trial, place: int) -> bool:
    bearer = trial.fleet.bearer
    return trial.registry.caller_with_token(bearer, place).call("GET", "/registry/services?limit=1").status == 503


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
def test_fleet_stays_listed_while_one_process_has_a_wrong_clock(tmp_path: Path, seconds: int) -> None:
    """That process responds 503, and does not count for the observation window."""
    with start_trial(tmp_path) as trial:
        clock = tmp_path / "clock"
        usual = dict(trial.registry.environment)
        trial.registry.environment.update(fake_clock(clock))
        trial.registry.web[1].kill()
        trial.registry.web[1].wait()
        trial.registry.web[1] = trial.registry.start_web(trial.registry.ports[1])
        wait_for(lambda: trial.registry.is_ready(trial.registry.ports[1]))
        trial.registry.environment = usual
        clock.write_text(f"{seconds:+d}")
        wait_for(lambda: responds_503(trial, 1))
        set_clock_off(clock, seconds, count_trials(4, 2))
        trial.assert_fleet_stayed_listed(f"one web process {seconds:+d} s off", 1)
        assert not responds_503(trial, 1)


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
def test_fleet_stays_listed_while_all_processes_have_a_wrong_clock(tmp_path: Path, seconds: int) -> None:
    clock = tmp_path / "clock"
    with start_trial(tmp_path, environment=fake_clock(clock)) as trial:
        set_clock_off(clock, seconds, count_trials(4, 2))
        trial.assert_fleet_stayed_listed(f"all web processes and the worker {seconds:+d} s off", 1)
        assert trial.fleet.statuses[503] > 0


class RegistryWithBroker(Registry):
    """Celery worker and beat as in production, with a Redis between them that can be killed."""

    def start_all(self) -> None:
        program = shutil.which("redis-server")
        assert program, "redis-server is missing; on Debian, as root: apt-get install redis-server"
        self.redis = [program, "--port", str(free_port()), "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]
        self.variables["CELERY_BROKER_URL"] = f"redis://127.0.0.1:{self.redis[2]}/0"
        self.broker = self.start_broker()
        super().start_all()
        self.start("-m", "celery", "-A", "registry_project", "beat", "-S", "celery.beat:Scheduler", "--pidfile=")

    def start_broker(self) -> subprocess.Popen[bytes]:
        with (self.directory / "redis").open("ab") as output:
            broker = subprocess.Popen(self.redis, stdout=output, stderr=output, cwd=self.directory)
        self.started.append(broker)
        return broker


def test_sweeps_continue_while_the_broker_is_killed(tmp_path: Path) -> None:
    """Part 5 tests that instances which end in the meantime expire in time."""
    kills = count_trials(3, 1)
    with start_trial(tmp_path, registry_class=RegistryWithBroker) as trial:
        assert isinstance(trial.registry, RegistryWithBroker)
        for _ in range(kills):
            trial.registry.broker.kill()
            trial.registry.broker.wait()
            swept = trial.registry.sql("SELECT swept_at FROM service_registry_registrystate")
            time.sleep(10)
            assert trial.registry.sql("SELECT swept_at FROM service_registry_registrystate") > swept
            trial.registry.broker = trial.registry.start_broker()
            time.sleep(5)
        trial.assert_fleet_stayed_listed("broker kill -9, away for 10 s", kills)
