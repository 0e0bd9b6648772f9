"""`manage.py export_registry` and `import_registry`"""

import json
import os
import signal
import subprocess
import time
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
from tests.commands import ROOT, command_line, environment, run
from tests.waiting import is_blocking_a_session, wait_for

OPERATOR = Caller("system:command", frozenset(), frozenset({"operate_instance", "manage_service"}))


def exported() -> list[dict[str, Any]]:
    return [json.loads(line) for line in exporting.export_lines()]


def written(path: Path, *documents: Any) -> str:
    file = path / "registry.jsonl"
    file.write_text("".join(f"{text if isinstance(text, str) else json.dumps(text)}\n" for text in documents))
    return str(file)


def empty() -> None:
    for model in (Override, Instance, Service):
        model.objects.all().delete()


@pytest.fixture
def fleet(payments: Api, stranger: Api, operator: Api) -> list[dict[str, Any]]:
    """What an export of it gives."""
    fields = {"zone": "eu", "weight": 7, "tags": ["b", "a"], "scheme": "https", "status": "STARTING", "ttl_seconds": 77}
    payments.register("web", "w-1", host="2001:db8::1", **fields)
    payments.register("web", "w-2", namespace="test")
    stranger.register("api", "a-1", metadata={"note": 'née, quote " and \\ and ☃'})
    operator.call("PUT", "/registry/instance/web/w-1/status", {"status": "DOWN", "reason": "disk"})
    until = {"status": "UP", "reason": "keep out", "until": "2999-01-01T00:00:00Z"}
    operator.call("PUT", "/registry/instance/api/not-yet/status", until)
    return exported()


def test_an_import_restores_what_an_export_gave(fleet: list[dict[str, Any]], tmp_path: Path, reader: Api) -> None:
    before = reader.get("/registry/services").json["services"]
    assert [line["type"] for line in fleet] == [*["service"] * 3, *["instance"] * 3, *["override"] * 2]
    empty()
    assert "8 lines imported, 0 refused." in run("import_registry", written(tmp_path, *fleet))
    assert sorted(exported(), key=str) == sorted(fleet, key=str)
    after = reader.get("/registry/services").json["services"]
    moved = {"index", "epoch", "registered_at", "instances"}
    for old, new in zip(before, after, strict=True):
        assert {k: v for k, v in old.items() if k not in moved} == {k: v for k, v in new.items() if k not in moved}
        for one, other in zip(old["instances"], new["instances"], strict=True):
            assert {k: v for k, v in one.items() if k not in moved} == {
                k: v for k, v in other.items() if k not in moved
            }
    assert set(Change.objects.filter(kind="registered").values_list("actor", flat=True)) >= {"system:command"}


def test_a_second_import_changes_nothing(fleet: list[dict[str, Any]], tmp_path: Path) -> None:
    end = changelog.read_newest_index()
    assert "8 lines imported, 0 refused." in run("import_registry", written(tmp_path, *fleet))
    assert changelog.read_newest_index() == end


def test_owners_go_on_as_before(fleet: list[dict[str, Any]], tmp_path: Path, payments: Api, stranger: Api) -> None:
    empty()
    run("import_registry", written(tmp_path, *fleet))
    assert payments.heartbeat("web", "w-1").status == 200
    assert stranger.heartbeat("web", "w-1").code == "not_owner"


def test_what_is_off_the_list_is_not_exported(payments: Api, operator: Api) -> None:
    payments.register("web", "gone")
    operator.call("PUT", "/registry/instance/web/x/status", {"status": "DOWN", "reason": "x"})
    Override.objects.update(until="2001-01-01T00:00:00Z")
    ageing.age_leases(60)
    with transaction.atomic():
        sweep()
    assert [line["type"] for line in exported()] == ["service"]


def test_pages_join_without_a_gap(db: None) -> None:
    owner = Caller("owner", frozenset({"team"}), frozenset({"register_instance"}))
    for service in ("a", "b", "c"):
        fleet = [Registration(**registration(service, f"i-{number}")) for number in range(700)]
        manager.register(fleet, owner)
    keys = [(line["service_name"], line["instance_id"]) for line in exported() if line["type"] == "instance"]
    assert len(keys) == len(set(keys)) == 2100


KEY = {"service_name": "web", "instance_id": "x"}
PAST = "2001-01-01T00:00:00Z"
WRONG: list[tuple[Any, str]] = [
    ("{", "it is not a JSON object of a known type"),
    ("", "it is not a JSON object of a known type"),
    ("[]", "it is not a JSON object of a known type"),
    ({"type": "lease"}, "it is not a JSON object of a known type"),
    ({"type": []}, "it is not a JSON object of a known type"),
    ({"type": "service", "name": "Web", "owners": ["a"]}, "name is not right"),
    ({"type": "service", "name": "b", "owners": ["team", "registry-services"]}, "owners.1 is not right: is a role"),
    (
        {"type": "service", "name": "b", "owners": ["a", "a"]},
        "owners is not right: must not hold the same owner twice.",
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


@pytest.mark.parametrize(("line", "said"), WRONG)
def test_a_wrong_line_is_named_and_the_others_are_taken(db: None, line: Any, said: str) -> None:
    lines = [GOOD, line, GOOD | {"name": "api"}]
    (batch,) = importing.import_lines([each if isinstance(each, str) else json.dumps(each) for each in lines], OPERATOR)
    (refused,) = batch.refused
    assert (batch.lines, refused.number) == (3, 2)
    assert said in refused.reason
    assert set(Service.objects.values_list("name", flat=True)) == {"web", "api"}


def test_refusals_stand_in_the_order_of_lines(db: None) -> None:
    override = {"type": "override", **KEY, "status": "UP", "reason": "x"}
    lines = [GOOD, override | {"until": PAST}, "{", {"type": "instance", **registration("nowhere", "x")}, override, "["]
    (batch,) = importing.import_lines([each if isinstance(each, str) else json.dumps(each) for each in lines], OPERATOR)
    assert [refused.number for refused in batch.refused] == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("dry", [False, True])
def test_a_key_that_stands_twice_is_named_by_its_first_line(db: None, dry: bool) -> None:
    twice = {"type": "instance", **registration("web", "x")}
    lines = [GOOD, {"type": "instance", **registration("nowhere", "x")}, twice, GOOD | {"name": "api"}, twice]
    (batch,) = importing.import_lines(map(json.dumps, lines), OPERATOR, dry)
    assert batch.refused[-1] == importing.RefusedLine(5, "instance_id is not right: repeats line 3.")
    assert Change.objects.filter(kind="registered").count() == (0 if dry else 1)


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_the_exit_code_says_that_lines_were_refused(db: None, tmp_path: Path, dry: list[str]) -> None:
    file = written(tmp_path, GOOD, "{")
    with pytest.raises(SystemExit) as ended:
        run("import_registry", file, *dry)
    assert ended.value.code == 1
    assert Service.objects.count() == (0 if dry else 1)


def test_a_file_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="The file cannot be read: No such file"):
        run("import_registry", str(tmp_path / "nowhere"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(CommandError, match="it is not UTF-8"):
        run("import_registry", str(tmp_path / "binary"))


@pytest.mark.django_db(transaction=True)
def test_processes_of_their_own_do_it_and_an_interrupt_ends_it_after_a_batch(tmp_path: Path) -> None:
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
        command.send_signal(signal.SIGINT)
        time.sleep(0.2)  # it takes note while it waits
    said, _ = command.communicate(timeout=20)
    assert (
        "500 of 1001 read\n500 lines imported, 0 refused.\nInterrupted: 500 of 1001 read; the rest is unchanged."
        in said
    )
    assert command.returncode == 130
    assert Instance.objects.count() == 599
    assert "1001 lines imported, 0 refused." in run("import_registry", str(tmp_path / "registry.jsonl"))
    assert Instance.objects.count() == 1000


def piped(said: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = ["sh", "-c", said, "sh", *command_line("import_registry", *arguments)]
    return subprocess.run(line, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("file", ["-", "/dev/stdin"])
def test_it_reads_from_a_pipe(tmp_path: Path, file: str) -> None:
    lines = written(tmp_path, GOOD, GOOD | {"name": "api"})
    done = piped(f'cat {lines} | "$@"', file)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2 read\n2 lines imported, 0 refused.\n", "")
    done = piped(f'"$@" < {lines}', file)
    assert (done.returncode, done.stdout) == (0, "2 of 2 read\n2 lines imported, 0 refused.\n")


@pytest.mark.django_db(transaction=True)
def test_a_pipe_that_turns_out_to_be_no_text_says_how_far_it_was_read(tmp_path: Path) -> None:
    lines = written(tmp_path, *[GOOD] * 1000)
    done = piped(f"(cat {lines}; head -c 100000 /dev/zero | tr '\\0' '\\377') | \"$@\"", "-")
    assert done.stderr == "CommandError: 500 read, then: it is not UTF-8. Run it again for the rest.\n"
    assert done.returncode == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("instances", [1, 1000])
def test_an_export_whose_reader_leaves_ends_without_a_word(instances: int) -> None:
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
def test_so_does_what_fails_besides(tmp_path: Path) -> None:
    pipe, end = os.pipe()
    os.close(pipe)
    line = command_line("import_registry", written(tmp_path, GOOD, "{"))
    done = subprocess.run(
        line, env=environment(), cwd=ROOT, stdout=end, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(end)
    assert (done.returncode, done.stderr) == (141, b"line 2: it is not a JSON object of a known type.\n")
