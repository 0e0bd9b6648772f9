"""`manage.py remove_instances`: filters, confirmation, batches and refusals."""

import os
import pty
import re
import select
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError
from django.db import connections, transaction

from service_registry import manager
from service_registry.caller import Caller
from service_registry.models import Change, Instance
from service_registry.schemas import Heartbeat, Registration
from tests import ageing
from tests.client import Api, registration
from tests.commands import ROOT, command_line, environment, interrupt, run
from tests.waiting import is_blocking_a_session, wait_for

OWNER = Caller("owner", frozenset({"team"}), frozenset({"register_instance", "heartbeat_instance"}))


def register(count: int, service_name: str = "web", **fields: Any) -> None:
    fleet = [Registration(**registration(service_name, f"i-{number}", **fields)) for number in range(count)]
    manager.register(fleet, OWNER)


def remaining() -> set[tuple[str, str]]:
    return set(Instance.objects.values_list("service__name", "instance_id"))


def test_remove_stores_the_reason_with_each_change(db: None) -> None:
    register(2)
    register(1, "other")
    assert "2 instances removed." in run("remove_instances", "--service=web", "--yes", "--reason=host lost")
    assert remaining() == {("other", "i-0")}
    for change in Change.objects.filter(kind="deregistered"):
        assert (change.actor, change.reason) == ("system:command", "host lost")
        assert change.evidence is not None
        assert "heartbeat_at" in change.evidence
    assert Change.objects.filter(kind="deregistered").count() == 2


@pytest.mark.parametrize(
    "filters",
    [
        ["--namespace=default"],
        ["--status=DOWN", "--status=STARTING"],
        ["--zone=eu-1"],
        ["--service=WEB"],
        ["--metadata=rack=7"],
        ["--metadata=app.kubernetes.io/args=a=b"],
        ["--metadata=rack=7", "--zone=eu-1", "--service=web", "--status=DOWN"],
    ],
)
def test_remove_with_several_filters_needs_all_to_match(db: None, filters: list[str]) -> None:
    metadata = {"rack": "7", "app.kubernetes.io/args": "a=b"}
    register(1, zone="eu-1", metadata=metadata, status="DOWN")
    register(1, "other", namespace="elsewhere", zone="eu-2", metadata={"rack": "70"})
    run("remove_instances", *filters, "--yes", "--reason=x")
    assert remaining() == {("other", "i-0")}


def test_status_filter_uses_the_override(payments: Api, operator: Api) -> None:
    payments.register(instance_id="a")
    payments.register(instance_id="b")
    operator.call("PUT", "/registry/instance/web/a/status", {"status": "OUT_OF_SERVICE", "reason": "drain"})
    run("remove_instances", "--status=OUT_OF_SERVICE", "--yes", "--reason=x")
    assert remaining() == {("web", "b")}


def test_silent_for_matches_no_permanent_instance(payments: Api) -> None:
    payments.register("printer", "p-1", lease="none")
    ageing.age_leases(86400)
    assert "0 instances match." in run("remove_instances", "--silent-for=1h", "--yes", "--reason=x")
    assert "1 instances removed." in run("remove_instances", "--service=printer", "--yes", "--reason=x")


def test_silent_for_counts_only_the_observation_window(payments: Api) -> None:
    payments.register(instance_id="silent")
    ageing.age_leases(100)
    payments.register(instance_id="fresh")
    assert "0 instances match." in run("remove_instances", "--silent-for=2m", "--yes", "--reason=x")
    ageing.set_window_age(60)
    assert "0 instances match." in run("remove_instances", "--silent-for=90s", "--yes", "--reason=x")
    ageing.set_window_age(100)
    assert "1 instances removed." in run("remove_instances", "--silent-for=90s", "--yes", "--reason=x")
    assert remaining() == {("web", "fresh")}


def test_remove_includes_expired_instances(payments: Api) -> None:
    payments.register()
    ageing.age_leases(60)
    run("sweep")
    run("remove_instances", "--all", "--yes", "--reason=x")
    assert remaining() == set()


def test_remove_of_many_instances_runs_in_batches(db: None) -> None:
    register(501)
    output = run("remove_instances", "--all", "--yes", "--reason=x")
    assert "500 of 501 removed\n501 of 501 removed\n501 instances removed." in output


def test_dry_run_prints_matches_and_changes_nothing(db: None) -> None:
    register(7)
    output = run("remove_instances", "--service=web", "--dry-run")
    assert "7 instances match:" in output
    assert "default/web/i-0, last heartbeat at" in output
    assert "... and 2 more" in output
    assert len(remaining()) == 7


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        ([], "Give a filter, or --all"),
        (["--service=Web!"], "--service is not right: String should match"),
        (["--namespace=-"], "--namespace is not right"),
        (["--status=SICK"], "--status is not right: Input should be 'UP'"),
        (["--zone=a b"], "--zone is not right"),
        (["--metadata=rack"], "--metadata must be KEY=VALUE."),
        (["--metadata=a b=c"], "--metadata is not right"),
        (["--silent-for=10"], "--silent-for must be a number and a unit"),
        (["--silent-for=0s"], "--silent-for must be a number and a unit"),
        (["--silent-for=999999999d", "--dry-run"], "--silent-for must be at most 3650d"),
        (["--service=web", "--yes"], "Give --reason"),
        (["--service=web", "--yes", "--reason= "], "Give --reason"),
        (["--service=web", "--reason=x"], "Standard input is not a terminal"),
    ],
)
def test_invalid_arguments_are_refused_in_one_sentence(db: None, arguments: list[str], output: str) -> None:
    register(1)
    with pytest.raises(CommandError) as refused:
        run("remove_instances", *arguments)
    assert output in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(remaining()) == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("filters", "stays"), [({"silent_for_seconds": 30}, True), ({"service_name": "web"}, False)])
def test_heartbeat_during_removal_is_matched_again(filters: dict[str, Any], stays: bool) -> None:
    register(2)
    ageing.age_leases(60)
    removed: list[manager.Selected] = []

    def remover() -> None:
        try:
            for batch in manager.remove(manager.Selection(**filters), "gone", OWNER, 500):
                removed.extend(batch)
        finally:
            connections.close_all()

    thread = threading.Thread(target=remover)
    with transaction.atomic():
        manager.heartbeat([Heartbeat(service_name="web", instance_id="i-0")], OWNER)
        thread.start()
        wait_for(is_blocking_a_session)
    thread.join(20)
    assert {each.instance_id for each in removed} == ({"i-1"} if stays else {"i-0", "i-1"})
    assert remaining() == ({("web", "i-0")} if stays else set())


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("answer", "count"), [(b"yes\n", 0), (b"no\n", 1), (b"\x03", 1), (b"\x04", 1)])
def test_remove_on_a_terminal_asks_for_confirmation(answer: bytes, count: int) -> None:
    register(1)
    output, code = on_terminal(answer, "remove_instances", "--service=web", "--reason=x")
    assert "1 instances match:" in output
    assert ("1 instances removed." if count == 0 else "Nothing was changed.") in output
    assert ("[####" in output) == (count == 0)
    assert (code, len(remaining())) == (0, count)


def on_terminal(answer: bytes, *arguments: str) -> tuple[str, int]:
    """Run a command on a terminal, type `answer` at its question, and return its output and exit code.

    The answer is typed when the command sleeps, in its read of the terminal: a Ctrl-C between the question and that
    read would not interrupt it.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        line = command_line(*arguments)
        os.execve(line[0], line, environment())
    output = b""
    try:
        while b"Type yes:" not in output:
            output += read_terminal(terminal) or pytest.fail(output.decode())
        wait_for(lambda: is_sleeping(pid))
        os.write(terminal, answer)
        while chunk := read_terminal(terminal):
            output += chunk
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
    _pid, status = os.waitpid(pid, 0)
    os.close(terminal)
    return output.decode(), os.waitstatus_to_exitcode(status)


def read_terminal(terminal: int) -> bytes:
    """Return the next output, nothing at its end. Raises TimeoutError after a minute without output."""
    if not select.select([terminal], [], [], 60)[0]:
        raise TimeoutError
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux reports EIO when the other side is closed.
        return b""


def is_sleeping(pid: int) -> bool:
    """Return whether the main thread waits in a system call (proc_pid_stat(5): the state follows the command)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("S")


@pytest.mark.django_db(transaction=True)
def test_lock_timeout_ends_with_one_sentence() -> None:
    register(1)
    line = command_line("remove_instances", "--all", "--yes", "--reason=x")
    with transaction.atomic():
        Instance.objects.select_for_update().get()
        command = subprocess.run(line, env=environment(), cwd=ROOT, capture_output=True, text=True, check=False)
    assert command.returncode == 1
    assert re.fullmatch(r"CommandError: 0 of 1 removed, then: canceling .* timeout\. Run it again.*\n", command.stderr)


@pytest.mark.django_db(transaction=True)
def test_interrupt_ends_after_the_current_batch() -> None:
    register(1000)
    register(1, "other")
    line = command_line("remove_instances", "--all", "--yes", "--reason=x")
    of_the_second_batch = Instance.objects.order_by("id").values_list("id", flat=True)[999]
    with transaction.atomic():
        Instance.objects.select_for_update().get(id=of_the_second_batch)
        command = subprocess.Popen(line, env=environment(), cwd=ROOT, stdout=subprocess.PIPE, text=True)
        wait_for(is_blocking_a_session)
        interrupt(command)
    output, _ = command.communicate(timeout=20)
    assert "Interrupted: 1000 of 1001 removed; the rest is unchanged." in output
    assert command.returncode == 130
    assert remaining() == {("other", "i-0")}
