"""`manage.py export_registry` and `import_registry`."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError
from django.db import transaction

from service_registry import changelog, manager
from service_registry.caller import Caller
from service_registry.expiry.sweep import sweep
from service_registry.models import Change, Instance, Override, Service
from service_registry.schemas import Registration
from service_registry.transfer import exporting, importing
from tests import ageing
from tests.client import Api, registration
from tests.commands import ROOT, command_line, environment, interrupt, run
from tests.waiting import is_blocking_a_session, wait_for

OPERATOR = Caller("system:command", frozenset(), frozenset({"operate_instance", "manage_service"}))


def export() -> list[dict[str, Any]]:
    return [json.loads(line) for line in exporting.export_lines()]


def write_lines(path: Path, *documents: Any) -> str:
    file = path / "registry.jsonl"
    file.write_text("".join(f"{text if isinstance(text, str) else json.dumps(text)}\n" for text in documents))
    return str(file)


def delete_everything() -> None:
    for model in (Override, Instance, Service):
        model.objects.all().delete()


@pytest.fixture
def fleet(payments: Api, other_team: Api, operator: Api) -> list[dict[str, Any]]:
    """Create services, instances and overrides, and return their export."""
    fields = {"zone": "eu", "weight": 7, "tags": ["b", "a"], "scheme": "https", "status": "STARTING", "ttl_seconds": 77}
    payments.register("web", "w-1", host="2001:db8::1", **fields)
    payments.register("Dubbo:Web", "10.0.0.2#80@@web/2", namespace="test", host="shop_web_2.")
    other_team.register("api", "a-1", metadata={"note": 'née, quote " and \\ and ☃'})
    operator.call("PUT", "/registry/instance/web/w-1/status", {"status": "DOWN", "reason": "disk"})
    until = {"status": "UP", "reason": "keep out", "until": "2999-01-01T00:00:00Z"}
    operator.call("PUT", "/registry/instance/api/not-yet/status", until)
    return export()


def test_import_restores_an_export(fleet: list[dict[str, Any]], tmp_path: Path, reader: Api) -> None:
    before = reader.get("/registry/services").json["services"]
    assert [line["type"] for line in fleet] == [*["service"] * 3, *["instance"] * 3, *["override"] * 2]
    delete_everything()
    assert "8 lines imported, 0 refused." in run("import_registry", write_lines(tmp_path, *fleet))
    assert sorted(export(), key=str) == sorted(fleet, key=str)
    after = reader.get("/registry/services").json["services"]
    moved = {"index", "epoch", "registered_at", "instances"}
    for old, new in zip(before, after, strict=True):
        assert {k: v for k, v in old.items() if k not in moved} == {k: v for k, v in new.items() if k not in moved}
        for one, other in zip(old["instances"], new["instances"], strict=True):
            assert {k: v for k, v in one.items() if k not in moved} == {
                k: v for k, v in other.items() if k not in moved
            }
    assert set(Change.objects.filter(kind="registered").values_list("actor", flat=True)) >= {"system:command"}


def test_second_import_changes_nothing(fleet: list[dict[str, Any]], tmp_path: Path) -> None:
    end = changelog.read_newest_index()
    assert "8 lines imported, 0 refused." in run("import_registry", write_lines(tmp_path, *fleet))
    assert changelog.read_newest_index() == end


def test_import_restores_owners(fleet: list[dict[str, Any]], tmp_path: Path, payments: Api, other_team: Api) -> None:
    delete_everything()
    run("import_registry", write_lines(tmp_path, *fleet))
    assert payments.heartbeat("web", "w-1").status == 200
    assert other_team.heartbeat("web", "w-1").code == "not_owner"


def test_export_leaves_out_expired_instances_and_ended_overrides(payments: Api, operator: Api) -> None:
    payments.register("web", "gone")
    operator.call("PUT", "/registry/instance/web/x/status", {"status": "DOWN", "reason": "x"})
    Override.objects.update(until="2001-01-01T00:00:00Z")
    ageing.age_leases(60)
    with transaction.atomic():
        sweep()
    assert [line["type"] for line in export()] == ["service"]


def test_export_of_several_pages_has_each_row_once(db: None) -> None:
    owner = Caller("owner", frozenset({"team"}), frozenset({"register_instance"}))
    for service in ("a", "b", "c"):
        fleet = [Registration(**registration(service, f"i-{number}")) for number in range(700)]
        manager.register(fleet, owner)
    keys = [(line["service_name"], line["instance_id"]) for line in export() if line["type"] == "instance"]
    assert len(keys) == len(set(keys)) == 2100


KEY = {"service_name": "web", "instance_id": "x"}
PAST = "2001-01-01T00:00:00Z"
WRONG: list[tuple[Any, str]] = [
    ("{", "it is not a JSON object of a known type"),
    ("", "it is not a JSON object of a known type"),
    ("[]", "it is not a JSON object of a known type"),
    ({"type": "lease"}, "it is not a JSON object of a known type"),
    ({"type": []}, "it is not a JSON object of a known type"),
    ({"type": "service", "name": "Web!", "owners": ["a"]}, "name is not right"),
    ({"type": "service", "name": "b", "owners": ["team", "registry-services"]}, "owners.1 is not right: is a role"),
    (
        {"type": "service", "name": "b", "owners": ["a", "a"]},
        "owners is not right: must not contain the same owner twice.",
    ),
    ({"type": "instance", **registration("web", "x", port=0)}, "port is not right"),
    ({"type": "instance", **registration("nowhere", "x")}, "There is no service of this name"),
    ({"type": "override", "service_name": "nowhere", "instance_id": "x", "status": "UP", "reason": "x"}, "no service"),
    ({"type": "override", "service_name": "web", "instance_id": "x", "status": "UP"}, "reason is not right"),
    ({"type": "override", "instance_id": "x", "status": "UP", "reason": "x"}, "service_name is not right"),
    (
        {"type": "override", **KEY, "status": "UP", "reason": "x", "until": PAST},
        "until is not right: must be a time in",
    ),
    ({"type": "instance", **registration("web", "x", port=0, weight=-1)}, "; weight is not right: Input should be"),
]


GOOD = {"type": "service", "name": "web", "owners": ["team"]}


@pytest.mark.parametrize(("line", "output"), WRONG)
def test_invalid_line_is_reported_and_the_others_are_imported(db: None, line: Any, output: str) -> None:
    lines = [GOOD, line, GOOD | {"name": "api"}]
    (batch,) = importing.import_lines([each if isinstance(each, str) else json.dumps(each) for each in lines], OPERATOR)
    (refused,) = batch.refused
    assert (batch.lines, refused.number) == (3, 2)
    assert output in refused.reason
    assert set(Service.objects.values_list("name", flat=True)) == {"web", "api"}


def test_refusals_are_in_the_order_of_lines(db: None) -> None:
    override = {"type": "override", **KEY, "status": "UP", "reason": "x"}
    lines = [GOOD, override | {"until": PAST}, "{", {"type": "instance", **registration("nowhere", "x")}, override, "["]
    (batch,) = importing.import_lines([each if isinstance(each, str) else json.dumps(each) for each in lines], OPERATOR)
    assert [refused.number for refused in batch.refused] == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("dry", [False, True])
def test_repeated_key_is_refused_with_the_number_of_its_first_line(db: None, dry: bool) -> None:
    twice = {"type": "instance", **registration("web", "x")}
    lines = [GOOD, {"type": "instance", **registration("nowhere", "x")}, twice, GOOD | {"name": "api"}, twice]
    (batch,) = importing.import_lines(map(json.dumps, lines), OPERATOR, dry)
    assert batch.refused[-1] == importing.RefusedLine(5, "instance_id is not right: repeats line 3.")
    assert Change.objects.filter(kind="registered").count() == (0 if dry else 1)


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_import_with_refused_lines_exits_with_1(db: None, tmp_path: Path, dry: list[str]) -> None:
    file = write_lines(tmp_path, GOOD, "{")
    with pytest.raises(SystemExit) as ended:
        run("import_registry", file, *dry)
    assert ended.value.code == 1
    assert Service.objects.count() == (0 if dry else 1)


def test_unreadable_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="The file cannot be read: No such file"):
        run("import_registry", str(tmp_path / "nowhere"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(CommandError, match="it is not UTF-8"):
        run("import_registry", str(tmp_path / "binary"))


@pytest.mark.django_db(transaction=True)
def test_interrupted_import_ends_after_the_current_batch(tmp_path: Path) -> None:
    owner = Caller("owner", frozenset({"team"}), frozenset({"register_instance"}))
    manager.register([Registration(**registration("web", f"i-{number:04}")) for number in range(1000)], owner)
    with (tmp_path / "registry.jsonl").open("w") as file:
        export = subprocess.run(
            command_line("export_registry"),
            env=environment(),
            cwd=ROOT,
            stdout=file,
            stderr=subprocess.PIPE,
            check=True,
        )
    assert export.stderr == b"1001 lines.\n"
    Instance.objects.filter(instance_id__lt="i-0900").delete()
    line = command_line("import_registry", str(tmp_path / "registry.jsonl"))
    with transaction.atomic():
        Service.objects.select_for_update().get()
        command = subprocess.Popen(line, env=environment(), cwd=ROOT, stdout=subprocess.PIPE, text=True)
        wait_for(is_blocking_a_session)
        interrupt(command)
    output, _ = command.communicate(timeout=20)
    assert (
        "500 of 1001 read\n500 lines imported, 0 refused.\nInterrupted: 500 of 1001 read; the rest is unchanged."
        in output
    )
    assert command.returncode == 130
    assert Instance.objects.count() == 599
    assert "1001 lines imported, 0 refused." in run("import_registry", str(tmp_path / "registry.jsonl"))
    assert Instance.objects.count() == 1000


def run_in_shell(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = ["sh", "-c", script, "sh", *command_line("import_registry", *arguments)]
    return subprocess.run(line, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("file", ["-", "/dev/stdin"])
def test_import_reads_from_a_pipe(tmp_path: Path, file: str) -> None:
    lines = write_lines(tmp_path, GOOD, GOOD | {"name": "api"})
    done = run_in_shell(f'cat {lines} | "$@"', file)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2 read\n2 lines imported, 0 refused.\n", "")
    done = run_in_shell(f'"$@" < {lines}', file)
    assert (done.returncode, done.stdout) == (0, "2 of 2 read\n2 lines imported, 0 refused.\n")


@pytest.mark.django_db(transaction=True)
def test_import_from_a_pipe_that_is_not_text_reports_the_lines_read(tmp_path: Path) -> None:
    lines = write_lines(tmp_path, *[GOOD] * 1000)
    done = run_in_shell(f"(cat {lines}; head -c 100000 /dev/zero | tr '\\0' '\\377') | \"$@\"", "-")
    assert done.stderr == "CommandError: 500 read, then: it is not UTF-8. Run it again for the rest.\n"
    assert done.returncode == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("instances", [1, 1000])
def test_export_to_a_closed_pipe_ends_silently(instances: int) -> None:
    owner = Caller("owner", frozenset({"team"}), frozenset({"register_instance"}))
    manager.register([Registration(**registration("web", f"i-{number:04}")) for number in range(instances)], owner)
    pipe, end = os.pipe()
    os.close(pipe)
    line = command_line("export_registry")
    done = subprocess.run(
        line, env=environment(), cwd=ROOT, stdout=end, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(end)
    assert done.returncode == 141
    assert done.stderr in {b"", f"{instances + 1} lines.\n".encode()}


@pytest.mark.django_db(transaction=True)
def test_import_with_closed_output_still_reports_refused_lines(tmp_path: Path) -> None:
    pipe, end = os.pipe()
    os.close(pipe)
    line = command_line("import_registry", write_lines(tmp_path, GOOD, "{"))
    done = subprocess.run(
        line, env=environment(), cwd=ROOT, stdout=end, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(end)
    assert (done.returncode, done.stderr) == (141, b"line 2: it is not a JSON object of a known type.\n")


def test_import_restores_a_permanent_instance(payments: Api, tmp_path: Path) -> None:
    payments.register("printer", "p-1", lease="none")
    payments.register("printer", "p-2", ttl_seconds=5)
    exported = export()
    line = next(line for line in exported if line.get("instance_id") == "p-1")
    assert (line["lease"], "ttl_seconds" in line) == ("none", False)
    delete_everything()
    run("import_registry", write_lines(tmp_path, *exported))
    assert export() == exported
    ageing.age_leases(86400)
    assert sweep().expired == 1
    assert payments.listed("printer") == ["p-1"]


@pytest.mark.parametrize("kind", ["http", "https", "tcp", "grpc"])
def test_import_restores_a_health_check(payments: Api, settings: Any, tmp_path: Path, kind: str) -> None:
    settings.REGISTRY_HEALTH_NETWORKS = ["10.0.0.0/8"]
    payments.register(health_check={"type": kind, "interval_seconds": 5})
    lines = export()
    delete_everything()
    assert "2 lines imported, 0 refused." in run("import_registry", write_lines(tmp_path, *lines))
    assert export() == lines
    shown = payments.get("/registry/instance/web/web-1").json["health_check"]
    assert payments.register(health_check=shown).status == 200
    assert export() == lines
