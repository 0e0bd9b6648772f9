"""Checkers as processes of their own, against real servers: down, up, killed, frozen, cut off."""

import random
import signal
import socketserver
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from tests.server.registry import Caller, Registry
from tests.waiting import wait_for

INTERVAL = 1
LATE = "registry_health_checks_late_total"
MANY = 12


class Fleet(socketserver.ThreadingTCPServer):
    """A server for all instances of a test: each has a path, and answers as `down` and `refused` say.

    Attributes:
        down: the instances that answer 503.
        requested_at: when each was checked, in monotonic seconds.
        cut: answer nothing to anyone, as behind a broken network.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.down: set[str] = set()
        self.requested_at: dict[str, list[float]] = defaultdict(list)
        self.cut = False

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class Handler(socketserver.StreamRequestHandler):
    server: Fleet

    def handle(self) -> None:
        name = self.rfile.readline().split()[1].decode().removeprefix("/")
        if self.server.cut:
            return
        self.server.requested_at[name].append(time.monotonic())
        code = 503 if name in self.server.down else 200
        self.wfile.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % code)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    directory = tmp_path_factory.mktemp("registry")
    variables = {"REGISTRY_HEALTH_NETWORKS": "127.0.0.0/8", "PROMETHEUS_MULTIPROC_DIR": str(directory / "metrics")}
    with Registry(directory, variables=variables) as running:
        yield running


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with Fleet() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def checkers(registry: Registry) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The checkers of a test, which ends those that it starts."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()
    registry.execute("DELETE FROM service_registry_healthchecker")  # those of killed ones
    registry.execute("DELETE FROM service_registry_lease")
    registry.execute("DELETE FROM service_registry_instance")


def start_checker(registry: Registry, checkers: list[subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    checkers.append(registry.start("manage.py", "check_health"))
    return checkers[-1]


def register(team: Caller, fleet: Fleet, count: int = MANY, service_name: str = "web", **check: Any) -> list[str]:
    names = [f"i-{number}" for number in range(count)]
    items = [
        {
            "service_name": service_name,
            "instance_id": name,
            "host": "127.0.0.1",
            "port": fleet.port,
            "ttl_seconds": 600,
            "health_check": {"type": "http", "path": f"/{name}", "interval_seconds": INTERVAL, "timeout_seconds": 1}
            | check,
        }
        for name in names
    ]
    answer = team.call("POST", "/registry/register", items)
    assert {result["status"] for result in answer.json["results"]} <= {200, 201}, answer.body
    return names


def healths(registry: Registry) -> dict[str, str]:
    return dict(registry.sql("SELECT instance_id, health FROM service_registry_instance"))


def wait_for_healths(registry: Registry, names: list[str], health: str) -> None:
    wait_for(lambda: all(healths(registry)[name] == health for name in names))


def listed(team: Caller) -> set[str]:
    return {instance["instance_id"] for instance in team.call("GET", "/registry/services/web").json["instances"]}


def read_checkers(registry: Registry) -> Any:
    """Return what /readyz says about checkers; it is ready in any case."""
    answer = registry.anonymous_caller().call("GET", "/readyz")
    assert (answer.status, answer.json["status"]) in {(200, "ok"), (200, "degraded")}
    return answer.json["checks"]["checkers"]


def count_changes(registry: Registry) -> int:
    count: int = registry.sql("SELECT count(*) FROM service_registry_change WHERE kind = 'health_changed'")[0][0]
    return count


def test_stopped_server_leaves_discovery_and_comes_back(
    registry: Registry, team: Caller, fleet: Fleet, checkers: list[subprocess.Popen[bytes]]
) -> None:
    names = register(team, fleet)
    start_checker(registry, checkers)
    wait_for_healths(registry, names, "passing")
    fleet.down.add("i-0")
    wait_for(lambda: listed(team) == set(names[1:]))
    fleet.down.clear()
    wait_for(lambda: listed(team) == set(names))


def test_stopped_server_makes_its_service_unavailable_to_a_deployment_script(
    registry: Registry, team: Caller, fleet: Fleet, checkers: list[subprocess.Popen[bytes]]
) -> None:
    names = register(team, fleet)
    start_checker(registry, checkers)
    wait_for_healths(registry, names, "passing")
    service, instance = f"/registry/services/web/health?require={MANY}", "/registry/instance/web/i-0/health?require=1"
    assert (team.call("GET", service).status, team.call("GET", instance).status) == (200, 200)
    fleet.down.add("i-0")
    wait_for(lambda: team.call("GET", service).status == 503)
    report = team.call("GET", service).json
    assert (report["healthy"], report["critical"], report["total"]) == (MANY - 1, 1, MANY)
    (shown,) = report["instances"]
    assert (shown["instance_id"], shown["reason"], shown["last_check"]["cause"]) == (
        "i-0",
        "health",
        "unexpected_status",
    )
    assert (team.call("GET", instance).status, team.call("GET", instance).json["healthy"]) == (503, False)
    fleet.down.clear()
    wait_for(lambda: team.call("GET", service).status == 200)
    assert team.call("GET", instance).status == 200


def test_many_instances_of_one_host_are_not_late(
    registry: Registry, team: Caller, fleet: Fleet, checkers: list[subprocess.Popen[bytes]]
) -> None:
    """Four run at once. With four for each regular claim, 20 a second, half of these 40 a second would be late."""
    names = register(team, fleet, count=80, service_name="large", interval_seconds=2)
    before = registry.read_metric(LATE)
    start_checker(registry, checkers)
    wait_for(lambda: min(len(fleet.requested_at[name]) for name in names) >= 6)
    late, run = registry.read_metric(LATE) - before, sum(map(len, fleet.requested_at.values()))
    assert late < run / 4


def test_checker_ends_cleanly(
    registry: Registry, team: Caller, fleet: Fleet, checkers: list[subprocess.Popen[bytes]]
) -> None:
    names = register(team, fleet)
    checker = start_checker(registry, checkers)
    wait_for_healths(registry, names, "passing")
    checker.terminate()
    assert checker.wait(30) == 0
    assert read_checkers(registry) == "no checker runs: no health changes"


def test_web_process_has_the_metrics_of_a_checker(
    registry: Registry, team: Caller, fleet: Fleet, checkers: list[subprocess.Popen[bytes]]
) -> None:
    names = register(team, fleet)
    start_checker(registry, checkers)
    wait_for_healths(registry, names, "passing")
    assert read_checkers(registry) == "ok"
    assert registry.read_metric('registry_health_checks_total{cause="ok",level="passing"}') >= len(names)
    assert registry.read_metric("registry_health_check_delay_seconds_count") >= len(names)
    assert registry.read_metric('registry_health_checkers{state="running"}') == 1
    text = registry.caller("registry-readers").call("GET", "/metrics").body.decode()
    assert 'registry_health_checks_total{cause="tls",level="critical"} 0.0' in text


def test_checker_that_is_killed_or_frozen_changes_nothing(
    registry: Registry, team: Caller, fleet: Fleet, checkers: list[subprocess.Popen[bytes]]
) -> None:
    names = register(team, fleet, unhealthy_after=1)
    checker = start_checker(registry, checkers)
    wait_for_healths(registry, names, "passing")
    before = count_changes(registry)
    checker.send_signal(signal.SIGSTOP)
    time.sleep(5 * INTERVAL)
    checker.send_signal(signal.SIGCONT)
    checked = len(fleet.requested_at["i-0"])
    wait_for(lambda: len(fleet.requested_at["i-0"]) >= checked + 3)
    checker.kill()
    time.sleep(5 * INTERVAL)
    start_checker(registry, checkers)
    checked = len(fleet.requested_at["i-0"])
    wait_for(lambda: len(fleet.requested_at["i-0"]) >= checked + 3)
    assert count_changes(registry) == before
    assert listed(team) == set(names)


def test_checker_goes_on_after_an_outage_of_the_database(
    registry: Registry, team: Caller, fleet: Fleet, checkers: list[subprocess.Popen[bytes]]
) -> None:
    names = register(team, fleet, unhealthy_after=1)
    checker, other = (start_checker(registry, checkers) for _ in range(2))
    wait_for_healths(registry, names, "passing")
    before = count_changes(registry)
    output = registry.directory / "output"
    logged = output.read_bytes().count(b"health_database_unavailable")
    with registry.stopped_postgres():
        wait_for(lambda: output.read_bytes().count(b"health_database_unavailable") >= logged + 6)
        other.terminate()
        assert other.wait(60) == 0
    checked = {name: len(fleet.requested_at[name]) for name in names}
    wait_for(lambda: all(len(fleet.requested_at[name]) > checked[name] + 1 for name in names))
    assert checker.poll() is None
    assert count_changes(registry) == before
    fleet.down.add("i-0")
    wait_for(lambda: healths(registry)["i-0"] == "critical")


def test_checker_that_is_cut_off_changes_nothing(
    registry: Registry, team: Caller, fleet: Fleet, checkers: list[subprocess.Popen[bytes]]
) -> None:
    names = register(team, fleet)
    start_checker(registry, checkers)
    wait_for_healths(registry, names, "passing")
    before = count_changes(registry)
    fleet.cut = True
    output = registry.directory / "output"
    wait_for(lambda: b"health_checker_cut_off" in output.read_bytes())
    wait_for(lambda: str(read_checkers(registry)).startswith("1 of 1 are cut off"))
    time.sleep(5 * INTERVAL)
    fleet.cut = False
    wait_for(lambda: b"health_checker_back" in output.read_bytes())
    assert count_changes(registry) == before
    fleet.down.add("i-0")
    wait_for(lambda: listed(team) == set(names[1:]))


def test_two_checkers_of_which_one_is_killed_again_and_again(
    registry: Registry, team: Caller, fleet: Fleet, checkers: list[subprocess.Popen[bytes]]
) -> None:
    """No check runs twice within half its interval, and none is forgotten."""
    interval, kills = 2, 8
    names = register(team, fleet, interval_seconds=interval)
    start_checker(registry, checkers)
    wait_for_healths(registry, names, "passing")
    chance = random.Random(19)
    for _ in range(kills):
        victim = start_checker(registry, checkers)
        time.sleep(chance.uniform(1, 3))
        victim.kill()
        victim.wait()
    checked = {name: len(fleet.requested_at[name]) for name in names}
    wait_for(lambda: all(len(fleet.requested_at[name]) > checked[name] for name in names))
    gaps = [later - earlier for times in fleet.requested_at.values() for earlier, later in pairwise(times)]
    print(f"{len(gaps)} gaps of {len(names)} checks over {kills} kills, from {min(gaps):.2f} to {max(gaps):.2f} s")
    assert sum(gap < interval / 2 for gap in gaps) == 0
    assert set(healths(registry).values()) == {"passing"}


def test_port_of_the_registry_is_never_checked(
    registry: Registry, team: Caller, fleet: Fleet, checkers: list[subprocess.Popen[bytes]]
) -> None:
    item = {"service_name": "web", "instance_id": "i-0", "host": "127.0.0.1", "port": 1}
    check = {"type": "tcp", "port": registry.postgres.port, "interval_seconds": 1, "unhealthy_after": 1}
    assert team.call("POST", "/registry/register", item | {"health_check": check}).status == 201
    start_checker(registry, checkers)
    wait_for_healths(registry, ["i-0"], "critical")
    assert registry.sql("SELECT cause FROM service_registry_healthstanding") == [("forbidden_address",)]
