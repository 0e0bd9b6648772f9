"""Wall clocks of the registry's processes that are an hour off, and a broker that dies."""

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from registry_project.devstack.processes import free_port
from tests.faults.timing import TTL_SECONDS, trials
from tests.faults.trial import Stage, stage
from tests.server.registry import Registry
from tests.waiting import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(540)]

LIBRARIES = (*Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), Path("/usr/lib/faketime/libfaketimeMT.so.1"))
HOUR = 3600


def faked(clock: Path) -> dict[str, str]:
    """The environment of a process whose wall clock is off by what stands in the file `clock`, from one second to the
    next. Its monotonic clock stays."""
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


def jump(clock: Path, seconds: int, ttls: int) -> None:
    """Let a clock be off for some TTLs, and then be right again."""
    clock.write_text(f"{seconds:+d}")
    time.sleep(ttls * TTL_SECONDS)
    clock.write_text("+0")


def answers_503(at: Stage, place: int) -> bool:
    bearer = at.fleet.bearer
    return at.registry.caller_with_token(bearer, place).call("GET", "/registry/services?limit=1").status == 503


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
def test_one_web_process_has_a_wrong_clock(tmp_path: Path, seconds: int) -> None:
    """It does not serve, and is not asked whether it hears."""
    with stage(tmp_path) as at:
        clock = tmp_path / "clock"
        usual = dict(at.registry.environment)
        at.registry.environment.update(faked(clock))
        at.registry.web[1].kill()
        at.registry.web[1].wait()
        at.registry.web[1] = at.registry.start_web(at.registry.ports[1])
        wait_for(lambda: at.registry.is_ready(at.registry.ports[1]))
        at.registry.environment = usual
        clock.write_text(f"{seconds:+d}")
        wait_for(lambda: answers_503(at, 1))
        jump(clock, seconds, trials(4, 2))
        at.assert_none_was_off_the_list(f"one web process {seconds:+d} s off", 1)
        assert not answers_503(at, 1)


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
def test_all_processes_of_the_registry_have_a_wrong_clock(tmp_path: Path, seconds: int) -> None:
    clock = tmp_path / "clock"
    with stage(tmp_path, environment=faked(clock)) as at:
        jump(clock, seconds, trials(4, 2))
        at.assert_none_was_off_the_list(f"all web processes and the worker {seconds:+d} s off", 1)
        assert at.fleet.statuses[503] > 0


class WithBroker(Registry):
    """Worker and beat as in production, with a Redis between them that can be killed."""

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


def test_the_broker_is_killed(tmp_path: Path) -> None:
    """And sweeps go on: somebody who dies meanwhile leaves in time, see the deaths without a worker."""
    kills = trials(3, 1)
    with stage(tmp_path, running=WithBroker) as at:
        assert isinstance(at.registry, WithBroker)
        for _ in range(kills):
            at.registry.broker.kill()
            at.registry.broker.wait()
            swept = at.registry.sql("SELECT swept_at FROM service_registry_registrystate")
            time.sleep(10)
            assert at.registry.sql("SELECT swept_at FROM service_registry_registrystate") > swept
            at.registry.broker = at.registry.start_broker()
            time.sleep(5)
        at.assert_none_was_off_the_list("broker kill -9, away for 10 s", kills)
