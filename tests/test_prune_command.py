"""`manage.py prune_changes`: which changes it prunes, and which it keeps."""

import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.management import CommandError
from django.db import connection, connections, transaction

from registry_project.celery import app
from service_registry import changelog, manager, tasks
from service_registry.caller import Caller
from service_registry.changelog import prune
from service_registry.models import Change, RegistryState
from service_registry.schemas import Deregistration, Registration
from tests import ageing
from tests.client import Api, registration
from tests.commands import ROOT, command_line, environment, interrupt, run
from tests.waiting import is_blocking_a_session, wait_for

OWNER = Caller("owner", frozenset({"team"}), frozenset({"register_instance", "operate_instance"}))
DAY = 86400


def log() -> list[tuple[str, str | None]]:
    return list(Change.objects.order_by("id").values_list("kind", "instance_id"))


def register(count: int, **fields: Any) -> None:
    manager.register([Registration(**registration("web", f"i-{number}", **fields)) for number in range(count)], OWNER)


def test_older_changes_are_pruned_and_younger_ones_stay(payments: Api) -> None:
    payments.register("web", "a")
    payments.register("web", "a", weight=1)
    ageing.age_changes(31 * DAY)
    payments.register("web", "a", weight=2)
    payments.register("web", "a", weight=3)
    assert "4 changes are older than" in (output := run("prune_changes"))
    assert "2 changes pruned." in output
    assert log() == [("service_created", None), *[("updated", "a")] * 3]
    assert "0 changes pruned." in run("prune_changes")


def test_default_age_is_the_setting(payments: Api, settings: LazySettings) -> None:
    payments.register()
    payments.register(weight=1)
    ageing.age_changes(5 * DAY)
    payments.register(weight=2)
    assert "0 changes are older than" in run("prune_changes")
    assert "0 changes are older than" in run("prune_changes", "--older-than=6d")
    settings.REGISTRY_CHANGE_RETENTION_DAYS = 4
    assert "4 changes are older than" in run("prune_changes")


def test_newest_change_of_the_log_stays(db: None) -> None:
    ageing.age_changes(DAY)
    run("prune_changes", "--older-than=1h")
    assert log() == [("log_started", None)]


def test_newest_change_of_each_service_stays(payments: Api) -> None:
    for name in ("web", "api"):
        payments.register(name, f"{name}-1")
        payments.deregister(name, f"{name}-1")
    newest = changelog.read_newest_indexes("default", "web")
    ageing.age_changes(DAY)
    run("prune_changes", "--older-than=1h")
    assert log() == [
        *[("service_created", None), ("deregistered", "web-1")],
        *[("service_created", None), ("deregistered", "api-1")],
    ]
    assert changelog.read_newest_indexes("default", "web") == newest
    assert payments.get("/registry/services/web").json["index"] == newest[1]


def test_newest_change_of_a_service_before_the_cutoff_stays(payments: Api) -> None:
    payments.register()
    payments.deregister()
    ageing.age_changes(DAY)
    payments.register()
    run("prune_changes", "--older-than=1h")
    assert [kind for kind, _ in log()] == ["service_created", "deregistered", "registered"]


def test_last_change_of_each_instance_registered_at_the_cutoff_stays(payments: Api) -> None:
    for name in ("stays", "leaves", "changes"):
        payments.register("web", name)
    payments.deregister("web", "leaves")
    payments.register("web", "changes", weight=1)
    ageing.age_changes(DAY)
    payments.register("web", "changes", weight=2)
    payments.deregister("web", "changes")
    run("prune_changes", "--older-than=1h")
    assert log()[1:] == [
        *[("registered", "stays"), ("updated", "changes")],
        *[("updated", "changes"), ("deregistered", "changes")],
    ]


def test_last_change_of_owners_stays(payments: Api) -> None:
    admin = Api("registry-admins")
    for team in ("team-a", "team-b", "team-payments"):
        admin.call("PUT", "/registry/services/web/owners", {"owners": [team]})
    payments.register()
    ageing.age_changes(DAY)
    run("prune_changes", "--older-than=1h")
    assert log() == [("owners_changed", None), ("registered", "web-1")]
    assert Change.objects.earliest("id").evidence == {"owners": ["team-payments"], "before": ["team-b"]}


def test_all_changes_of_a_deleted_service_are_pruned(payments: Api) -> None:
    payments.register()
    payments.deregister()
    Api("registry-admins").call("DELETE", "/registry/services/web")
    payments.register("other")
    ageing.age_changes(DAY)
    run("prune_changes", "--older-than=1h")
    assert log() == [("service_created", None), ("registered", "web-1")]
    assert set(Change.objects.values_list("service_name", flat=True)) == {"other"}


def test_pruning_may_stop_between_ranges_of_ids(db: None) -> None:
    for weight in range(4):
        register(10, weight=weight)
    ageing.age_changes(DAY)
    planned = prune.plan_pruning(3600)
    assert prune.count_planned(planned) == 42
    steps = prune.prune(planned, rows_per_transaction=10)
    assert next(steps) == prune.PruneStep(10, 9)  # log_started and 8 of 9 registrations; the service's owners stay
    assert len(log()) == 33
    rest = list(prune.prune(prune.plan_pruning(3600), rows_per_transaction=10))
    assert [step.examined for step in rest] == [10, 10, 10, 3]
    assert log() == [("service_created", None), *[("updated", f"i-{number}") for number in range(10)]]


def test_dry_run_counts_and_changes_nothing(db: None) -> None:
    register(5)
    register(5, weight=1)
    ageing.age_changes(DAY)
    before = log()
    assert "6 would be pruned: nothing was changed." in run("prune_changes", "--older-than=1h", "--dry-run")
    assert log() == before
    assert RegistryState.objects.get().pruned_before is None
    assert "6 changes pruned." in run("prune_changes", "--older-than=1h")


@pytest.mark.parametrize("duration", ["", "1", "0d", "-1d", "1w", "1.5d", "\u0661d", "d", "1d\n", "9999999999s"])
def test_text_that_is_no_duration_is_refused(db: None, duration: str) -> None:
    with pytest.raises(CommandError, match="--older-than must be a number and a unit"):
        run("prune_changes", f"--older-than={duration}")


@pytest.mark.parametrize("duration", ["3651d", "9999999d", "999999999d", "999999999s"])
def test_duration_over_ten_years_is_refused(db: None, duration: str) -> None:
    with pytest.raises(CommandError, match="--older-than must be at most 3650d"):
        run("prune_changes", f"--older-than={duration}")
    assert "0 changes pruned." in run("prune_changes", "--older-than=3650d")


def test_celery_beat_prunes_every_night(db: None, capsys: pytest.CaptureFixture[str]) -> None:
    register(1)
    register(1, weight=1)
    ageing.age_changes(31 * DAY)
    tasks.prune_changes()
    assert '"outcomes":{"pruned":2}' in capsys.readouterr().err
    entry = app.conf.beat_schedule["prune_changes"]
    assert entry["task"] == tasks.prune_changes.name
    assert entry["schedule"].remaining_estimate(entry["schedule"].now()).total_seconds() <= DAY
    assert entry["options"]["expires"] < DAY


def alongside(work: Callable[[], Any]) -> list[Any]:
    """Run `work` on another connection, and return its result in a list. Fails when it waits for this one."""
    returned: list[Any] = []

    def run_it() -> None:
        try:
            returned.append(work())
        except prune.PruneInProgress as error:
            returned.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run_it)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    return returned


@pytest.fixture
def old_log(transactional_db: None) -> prune.PrunePlan:
    register(20)
    register(20, weight=1)
    ageing.age_changes(DAY)
    return prune.plan_pruning(3600)


def test_writers_do_not_wait_for_pruning(old_log: prune.PrunePlan) -> None:
    with transaction.atomic():
        assert prune.delete(0, old_log.until, old_log) == 21
        assert alongside(lambda: register(20, weight=2)) == [None]
    assert len(log()) == 41


def test_pruning_does_not_wait_for_writers(old_log: prune.PrunePlan) -> None:
    with transaction.atomic():
        register(20, weight=2)
        (steps,) = alongside(lambda: list(prune.prune(old_log)))
        assert steps == [prune.PruneStep(42, 21)]
    assert len(log()) == 41


def test_second_pruning_process_is_refused(old_log: prune.PrunePlan) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [prune.PRUNE_LOCK])
        (refusal,) = alongside(lambda: list(prune.prune(old_log)))
        assert isinstance(refusal, prune.PruneInProgress)
        command = subprocess.run(
            command_line("prune_changes", "--older-than=1h"),
            env=environment(),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert (command.returncode, command.stderr) == (
        1,
        "CommandError: 0 changes pruned; another process is pruning the log and does the rest.\n",
    )


@pytest.mark.django_db(transaction=True)
def test_interrupt_ends_pruning_after_the_current_step() -> None:
    for weight in range(11):
        register(1000, weight=weight)
    ageing.age_changes(DAY)
    of_the_second_step = Change.objects.order_by("id").values_list("id", flat=True)[7000]
    line = command_line("prune_changes", "--older-than=1h")
    with transaction.atomic():
        Change.objects.select_for_update().get(id=of_the_second_step)
        command = subprocess.Popen(line, env=environment(), cwd=ROOT, stdout=subprocess.PIPE, text=True)
        wait_for(is_blocking_a_session)
        interrupt(command)
    output, _ = command.communicate(timeout=20)
    assert "10000 of 11002 examined" in output
    assert "9999 changes pruned.\nInterrupted: 10000 of 11002 examined; the rest is unchanged." in output
    assert command.returncode == 130
    assert Change.objects.count() == 1003
    assert "\n2 changes pruned." in run("prune_changes", "--older-than=1h")


def register_and_deregister(instance_id: str) -> None:
    manager.register([Registration(**registration("web", instance_id))], OWNER)
    manager.deregister([Deregistration(service_name="web", instance_id=instance_id)], OWNER)


def prune_changes_older_than_50_ms() -> None:
    try:
        list(prune.prune(prune.plan_pruning(0.05), rows_per_transaction=7))
    except prune.PruneInProgress:
        time.sleep(0.01)


def test_log_stays_correct_while_several_processes_write_and_prune(transactional_db: None) -> None:
    """Four instances register and deregister, and two pruners take turns. At the end no instance is there."""
    written = threading.Event()

    def write(instance_id: str) -> None:
        for _ in range(40):
            register_and_deregister(instance_id)
        connections.close_all()

    def prune_meanwhile() -> None:
        while not written.is_set():
            prune_changes_older_than_50_ms()
        connections.close_all()

    with ThreadPoolExecutor(6) as threads:
        pruning = [threads.submit(prune_meanwhile) for _ in range(2)]
        try:
            list(threads.map(write, [f"i-{number}" for number in range(4)]))
        finally:
            written.set()
        for each in pruning:
            each.result()
    time.sleep(0.1)
    prune_changes_older_than_50_ms()
    print(f"{Change.objects.count()} changes left")
    assert [kind for kind, _ in log()] == ["service_created", "deregistered"]
