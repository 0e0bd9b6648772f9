"""The log: one line per operation, without tokens, metadata values or harmful text."""

import json
import logging
import logging.config
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import Group
from django.db import DataError, OperationalError, connection
from django.test import Client

from registry_project import settings as project_settings
from service_registry import logs
from service_registry.access_models import User
from service_registry.api.request_log import readable_route
from service_registry.expiry.sweep import sweep
from service_registry.models import Instance
from tests.ageing import age_expiries, age_leases
from tests.client import Api, registration, token
from tests.commands import run
from tests.leaks import CANARY
from tests.server.registry import Registry

Lines = list[dict[str, Any]]
JWT = token("registry-services", "team-payments")
CONTENT: dict[str, Any] = {"metadata": {"note": CANARY}, "tags": ["blue"]}


@pytest.fixture
def read_lines(capsys: pytest.CaptureFixture[str]) -> Any:
    """A function that returns the lines since its last call."""
    return lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]


@pytest.fixture
def logged_reads(settings: LazySettings) -> None:
    settings.REGISTRY_LOG_READS = "all"


def test_registration_logs_one_line_with_all_fields(payments: Api, read_lines: Any) -> None:
    answer = payments.register("web", "web-1", metadata={"note": CANARY})
    (line,) = read_lines()
    assert line.pop("time").endswith("Z")
    assert line.pop("duration_ms") > 0
    assert line.pop("process") > 0
    assert line.pop("actor").startswith("payments@http://")
    assert line == {
        "level": "info",
        "logger": "service_registry.http.request_log",
        "event": "register",
        "request_id": answer.headers["x-request-id"],
        "method": "POST",
        "route": "/registry/register",
        "status": 201,
        "service_name": "web",
        "instance_id": "web-1",
        "outcomes": {"created": 1},
    }


def test_array_logs_one_line_with_outcomes(payments: Api, read_lines: Any) -> None:
    payments.register("web", "a")
    read_lines()
    items = [registration("web", name) for name in ("a", "b", "b")]
    payments.post("/registry/register", [*items, {"port": 0}])
    (line,) = read_lines()
    assert (line["items"], line["outcomes"]) == (4, {"ok": 1, "created": 1, "invalid": 2})
    assert "instance_id" not in line


def test_refused_array_logs_one_outcome(reader: Api, read_lines: Any) -> None:
    reader.post("/registry/register", [registration(), registration()])
    (line,) = read_lines()
    assert (line["status"], line["code"], line["level"]) == (403, "permission_denied", "info")
    assert line["outcomes"] == {"permission_denied": 1}  # refused before the body was read


@pytest.mark.parametrize(
    ("asked", "event", "named"),
    [
        ("GET /registry/services?namespace=default", "list", ("default", None, None)),
        ("GET /registry/services/web", "discover", (None, "web", None)),
        ("GET /registry/services/WEB", "discover", (None, "web", None)),
        ("GET /registry/instance/web-1", "instance", (None, None, "web-1")),
        ("GET /registry/instance/web/web-1?namespace=default", "instance", ("default", "web", "web-1")),
        ("GET /registry/services/web/health?require=9", "service_health", (None, "web", None)),
        ("GET /registry/instance/web/web-1/health", "instance_health", (None, "web", "web-1")),
        ("DELETE /registry/instance/web/web-1/status", "clear_override", (None, "web", "web-1")),
        ("GET /registry/nowhere", "unknown", (None, None, None)),
    ],
)
@pytest.mark.usefixtures("logged_reads")
def test_request_line_names_its_subject(
    payments: Api, read_lines: Any, asked: str, event: str, named: tuple[str | None, ...]
) -> None:
    payments.register()
    read_lines()
    method, path = asked.split(" ")
    payments.call(method, path)
    (line,) = read_lines()
    assert line["event"] == event
    assert tuple(map(line.get, ("namespace", "service_name", "instance_id"))) == named


def test_read_logs_a_line_only_when_it_fails(payments: Api, read_lines: Any) -> None:
    payments.register()
    read_lines()
    health = ("services/web/health", "services/web/health?require=9", "services/no/health")
    for path in ("services", "services/web", "instance/web/web-1", *health, "changes", "services/no"):
        payments.get(f"/registry/{path}")
    assert [(line["event"], line["status"]) for line in read_lines()] == [
        ("service_health", 404),
        ("changes", 403),
        ("discover", 404),
    ]


def test_heartbeat_without_a_change_logs_no_line(payments: Api, read_lines: Any) -> None:
    payments.register()
    read_lines()
    payments.heartbeat()
    payments.heartbeat(status="UP")
    payments.post("/registry/heartbeat", [{"service_name": "web", "instance_id": "web-1"}])
    assert read_lines() == []


def test_heartbeat_with_a_change_logs_one_line(payments: Api, read_lines: Any) -> None:
    payments.register()
    read_lines()
    payments.heartbeat(status="DOWN")
    age_leases(40)
    sweep()
    payments.heartbeat()
    payments.heartbeat(instance_id="nobody")
    payments.post("/registry/heartbeat", [{"service_name": "web", "instance_id": name} for name in ("web-1", "x")])
    changed, swept, recovered, refused, array = read_lines()
    assert [line["event"] for line in (changed, swept, recovered)] == ["heartbeat", "sweep", "heartbeat"]
    assert refused["code"] == "instance_not_found"
    assert array["outcomes"] == {"ok": 1, "instance_not_found": 1}


def test_sweep_without_a_change_logs_no_line(payments: Api, read_lines: Any) -> None:
    payments.register()
    read_lines()
    sweep()
    assert read_lines() == []
    age_leases(40)
    sweep()
    age_expiries(700)
    sweep()
    expired, purged = read_lines()
    assert (expired["actor"], expired["outcomes"]) == ("system:sweep", {"expired": 1})
    assert purged["outcomes"] == {"purged": 1}


def test_removal_by_command_logs_one_line(payments: Api, read_lines: Any) -> None:
    payments.post("/registry/register", [registration("web", f"i-{number}") for number in range(501)])
    read_lines()
    run("remove_instances", "--service=web", "--yes", "--reason=x")
    (line,) = read_lines()
    assert (line["event"], line["actor"], line["service_name"]) == ("remove", "system:command", "web")
    assert (line["items"], line["outcomes"]) == (501, {"ok": 501})
    assert line["duration_ms"] > 0
    run("remove_instances", "--service=web", "--yes", "--reason=x")
    assert read_lines() == []


def test_admin_action_logs_a_line_besides_its_request(payments: Api, read_lines: Any) -> None:
    payments.register("web", "a")
    payments.register("web", "b")
    user = User.objects.create(username="oscar", is_staff=True)
    user.groups.set(Group.objects.filter(name="registry-operators"))
    client = Client()
    client.force_login(user, "service_registry.identity.login_limits.PasswordBackend")
    form = {"action": "remove", "_selected_action": list(Instance.objects.values_list("pk", flat=True))}
    page = client.post("/admin/service_registry/instance/", form)
    read_lines()
    confirmed = {"confirmed": "yes", "shown": page.context["shown"], "reason": "gone"}
    client.post("/admin/service_registry/instance/", form | confirmed)
    action, request = read_lines()
    assert (action["event"], action["actor"], action["items"]) == ("remove", "admin:oscar", 2)
    assert action["outcomes"] == {"ok": 2}
    assert (request["event"], request["request_id"]) == ("admin", action["request_id"])


def test_line_of_django_for_a_request_has_the_request_id(payments: Api, read_lines: Any) -> None:
    user = User.objects.create(username="oscar", is_staff=True)
    client = Client(enforce_csrf_checks=True)
    client.force_login(user, "service_registry.identity.login_limits.PasswordBackend")
    client.post("/admin/service_registry/instance/", headers={"X-Request-Id": "find-me"})
    line = next(line for line in read_lines() if line["logger"] == "django.security.csrf")
    assert (line["level"], line["request_id"]) == ("warning", "find-me")


def test_request_for_an_unknown_host_is_logged_with_its_code(payments: Api, read_lines: Any) -> None:
    payments.get("/registry/changes", Host="evil.example")
    (line,) = read_lines()
    assert (line["status"], line["code"], line["outcomes"]) == (421, "unknown_host", {"unknown_host": 1})


MANY_FIELDS = "&".join(f"field{number}=" for number in range(1001))


@pytest.mark.parametrize("method", ["get", "post"])
def test_request_with_too_many_fields_is_one_line_without_a_traceback(db: None, read_lines: Any, method: str) -> None:
    client = Client(enforce_csrf_checks=True)
    client.cookies["csrftoken"] = "a" * 32
    if method == "get":
        client.get(f"/admin/login/?{MANY_FIELDS}")
    else:
        client.post("/admin/login/", MANY_FIELDS, "application/x-www-form-urlencoded")
    (line,) = read_lines()
    assert (line["status"], line["level"], "exception" in line) == (400, "info", False)


def test_successful_probe_logs_no_line(db: None, read_lines: Any) -> None:
    Api().client.get("/livez")
    assert read_lines() == []


BROKEN_DATABASE = """
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'broken'; END $$;
CREATE TRIGGER fail BEFORE INSERT ON service_registry_instance EXECUTE FUNCTION fail();
"""


def test_unexpected_error_logs_its_traceback_on_the_same_line(payments: Api, read_lines: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(BROKEN_DATABASE)
    headers = {"Authorization": f"Bearer {payments.bearer}", "X-Request-Id": "find-me"}
    payments.client.post("/registry/register", registration(), "application/json", headers=headers)
    (line,) = read_lines()
    assert (line["level"], line["status"], line["code"], line["request_id"]) == ("error", 500, "internal", "find-me")
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith("ProgrammingError: broken")


def format_record(formatter: logging.Formatter, message: str, error: Any = None, **fields: Any) -> str:
    exc_info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("test", logging.INFO, __file__, 1, message, None, exc_info)
    record.fields = fields
    return formatter.format(record)


def test_database_error_logs_only_the_first_line_of_its_message() -> None:
    error = DataError(f"value too long\nDETAIL:  Failing row contains ({CANARY}).")
    error.__cause__ = OperationalError(f"connection lost\nCONTEXT:  {CANARY}")
    line = format_record(logs.JSONFormatter(), "failed", error)
    assert CANARY not in line
    assert "OperationalError: connection lost\\nTraceback" in line


def test_token_in_an_error_is_redacted() -> None:
    assert "KeyError: '[token]'\"" in format_record(logs.JSONFormatter(), "failed", KeyError(JWT))


@pytest.mark.parametrize("formatter", [logs.JSONFormatter(), logs.TerminalFormatter()])
@pytest.mark.parametrize("text", ["a\nb", "a\x1b[31mb", "\u202eb", "\ud800", "\x00", "x" * 300, f"Bearer {JWT}"])
def test_hostile_text_is_escaped_redacted_and_cut(formatter: logging.Formatter, text: str) -> None:
    for line in (format_record(formatter, text), format_record(formatter, "x", service_name=text)):
        assert line.isprintable()
        assert len(line) < 500
        assert not any(part in line for part in JWT.split("."))


def test_terminal_formatter_writes_a_sentence() -> None:
    fields = {"namespace": "default", "service_name": "web", "actor": "me", "outcomes": {"created": 1}}
    line = format_record(logs.TerminalFormatter(), "register", None, **fields, duration_ms=2.5)
    assert line[8:] == " info    register  default/web  1 created  me  2.5 ms"


def test_loggers_of_libraries_use_the_same_format(read_lines: Any) -> None:
    # Servers that other tests started in this process have configured these loggers.
    logging.getLogger("uvicorn.error").setLevel(logging.INFO)
    logging.config.dictConfig(project_settings.LOGGING)
    for name in ("uvicorn.error", "celery.worker", "django.security.csrf", "py.warnings"):
        logging.getLogger(name).warning("from %s", name)
    logging.getLogger("uvicorn.access").info("GET /registry/services?metadata.note=%s", CANARY)
    lines: Lines = read_lines()
    assert [line["logger"] for line in lines] == [
        "uvicorn.error",
        "celery.worker",
        "django.security.csrf",
        "py.warnings",
    ]


@pytest.mark.parametrize(
    ("route", "shown"),
    [
        ("registry/^services/(?P<name>[^/]+)/?$", "/registry/services/{name}"),
        ("registry/^register/?$", "/registry/register"),
    ],
)
def test_route_is_logged_as_the_readme_writes_it(route: str, shown: str) -> None:
    assert readable_route(route) == shown


def test_timestamp_of_a_second_is_formatted_once() -> None:
    formatter = logs.JSONFormatter()
    records = [logging.makeLogRecord({"created": 1_000_000_000 + number / 1000}) for number in range(1000)]
    logs.format_second.cache_clear()
    times = [json.loads(formatter.format(record))["time"] for record in records]
    assert {time[:19] for time in times} == {"2001-09-09T01:46:40"}
    assert logs.format_second.cache_info().misses == 1


def test_output_of_all_processes_has_no_token_and_no_metadata(tmp_path: Path) -> None:
    """Send valid and invalid requests for every operation, at last without the database, and read all output."""
    with Registry(tmp_path, variables={"REGISTRY_LOG_HEARTBEATS": "all", "REGISTRY_LOG_READS": "all"}) as registry:
        registry.start("-W", "ignore", "-m", "celery", "--quiet", "-A", "registry_project", "worker", "-P", "solo")
        callers = [registry.caller(f"registry-{role}", "team") for role in ("services", "admins", "readers")]
        tokens = [str(caller.headers["Authorization"]).removeprefix("Bearer ") for caller in callers]
        for caller in callers:
            send_requests(caller)
        for caller in (
            registry.caller_with_token(tokens[0][:-3]),
            registry.caller_with_token(f"{tokens[0]}.x"),
            registry.anonymous_caller(),
        ):
            send_requests(caller)
        registry.postgres.stop()
        send_requests(registry.caller_with_token(tokens[0]))
        registry.postgres.start()
    output = (tmp_path / "output").read_text()
    assert CANARY not in output
    assert not any(part in output for sent in tokens for part in sent.split("."))
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert {"register", "heartbeat", "deregister", "list", "discover", "instance", "override"} <= {
        line["event"] for line in lines
    }
    assert [line for line in lines if line.get("status") == 500] == []
    assert {line["status"] for line in lines if "status" in line} == {
        200,
        201,
        204,
        302,
        400,
        401,
        403,
        404,
        405,
        421,
        503,
    }
    assert [line for line in output.splitlines() if not line.startswith("{")] == []


KEY = {"service_name": "web", "instance_id": "web-1"}


def send_requests(caller: Any) -> None:
    for body in (registration(**CONTENT), [registration(**CONTENT)], registration(**CONTENT, port=CANARY)):
        caller.call("POST", "/registry/register", body)
    caller.call("POST", "/registry/register", registration(metadata={CANARY: "\x00", "x": CANARY * 99}))
    for body in (KEY, [KEY], KEY | {"status": CANARY}, KEY | {"instance_id": "nobody"}):
        caller.call("POST", "/registry/heartbeat", body)
    caller.call("PUT", "/registry/instance/web/web-1/status", {"status": "DOWN", "reason": "x"})
    paths = ("services", "services/web", "instance/web-1", "instance/web/web-1", "nowhere", "schema", "docs")
    for path in paths:
        caller.call("GET", f"/registry/{path}?metadata.note={CANARY}")
        caller.call("GET", f"/registry/{path}")
    caller.call("GET", f"/admin/?next={CANARY}")
    caller.call("POST", f"/registry/services?metadata.note={CANARY}", {"note": CANARY})
    caller.call("GET", f"/registry/services?metadata.note={CANARY}", Host="evil.example")
    caller.call("POST", "/registry/deregister", KEY)
