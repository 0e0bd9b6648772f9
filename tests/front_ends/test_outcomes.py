"""Not found, conflict and not modified through every front end."""

from tests.client import registration, token
from tests.front_ends.calls import CALLS, INSTANCE, KEY, OTHER_INSTANCE, SERVICE, TEAM
from tests.front_ends.client import NAMESPACE, FrontEnd, Request
from tests.front_ends.running import Case, Run, expect, expect_items, request_of

ADMIN_GROUPS = ("registry-admins", TEAM)
ABSENT = KEY | {"instance_id": "absent"}
LATER = KEY | {"epoch": 2**50}
OTHER_START = KEY | {"incarnation": "of another process"}


def test_call_for_an_unknown_name_is_not_found(run: Run) -> None:
    admin = token(*ADMIN_GROUPS, subject="admin")
    nowhere = KEY | {"service_name": f"never-{SERVICE}"}
    never = expect(404, "instance_not_found", reason="never_registered")
    no_service = expect(404, "service_not_found")
    cases = [
        Case(f"{operation} of {key}", Request("POST", f"/registry/{operation}", key, admin), never)
        for operation in ("heartbeat", "deregister")
        for key in (ABSENT, nowhere)
    ]
    cases += [
        Case(
            f"{call.name} of no service",
            request_of(call, admin, path=call.path.replace(SERVICE, "nowhere")),
            no_service,
        )
        for call in CALLS
        if call.name
        in {
            *("discovery", "discovery after an index", "head of discovery", "instance", "override", "clear override"),
            *("release", "delete service", "health of a service", "health of two", "health of an instance"),
        }
    ]
    instance = f"/registry/instance/{SERVICE}/absent?namespace={NAMESPACE}"
    cases += [
        Case("an instance", Request("GET", instance, None, admin), never),
        Case(
            "its health",
            Request("GET", f"/registry/instance/{SERVICE}/absent/health?namespace={NAMESPACE}", None, admin),
            never,
        ),
        Case("an instance by id", Request("GET", "/registry/instance/absent", None, admin), never),
        Case(
            "discovery with If-None-Match",
            Request("GET", "/registry/services/nowhere", None, admin, headers=(("If-None-Match", "*"),)),
            no_service,
        ),
    ]
    run.run(cases, refused=True)
    run.conclude()


def test_item_that_is_unknown_or_superseded_fails_alone(run: Run) -> None:
    admin = token(*ADMIN_GROUPS, subject="admin")
    other = KEY | {"instance_id": OTHER_INSTANCE}
    outcomes = {
        "heartbeat": [(409, "lease_superseded"), (404, "instance_not_found"), (200, None)],
        "deregister": [(409, "lease_superseded"), (404, "instance_not_found"), (204, None)],
    }
    run.run(
        [
            Case(name, Request("POST", f"/registry/{name}", [fenced, ABSENT, other], admin), expect_items(*items))
            for name, items in outcomes.items()
            for fenced in (LATER, OTHER_START)
        ]
    )
    run.conclude()


def test_write_with_another_epoch_or_incarnation_is_superseded(run: Run) -> None:
    admin = token(*ADMIN_GROUPS, subject="admin")
    run.run(
        [
            Case(name, Request("POST", f"/registry/{name}", fenced, admin), expect(409, "lease_superseded"))
            for name in ("heartbeat", "deregister")
            for fenced in (LATER, OTHER_START)
        ],
        refused=True,
    )
    run.conclude()


def test_deregistered_instance_is_not_found_with_that_reason(run: Run) -> None:
    admin = token(*ADMIN_GROUPS, subject="admin")
    path = f"/registry/instance/{SERVICE}/{INSTANCE}?namespace={NAMESPACE}"
    gone = expect(404, "instance_not_found", reason="deregistered")
    run.run(
        [
            Case("heartbeat", Request("POST", "/registry/heartbeat", KEY, admin), gone, of_empty=True),
            Case("instance", Request("GET", path, None, admin), gone, of_empty=True),
            Case("deregister", Request("POST", "/registry/deregister", KEY, admin), expect(204), of_empty=True),
            Case(
                "in an array",
                Request("POST", "/registry/heartbeat", [KEY], admin),
                expect_items((404, "instance_not_found")),
                of_empty=True,
            ),
        ]
    )
    run.conclude()


def test_delete_of_a_service_with_instances_is_refused(run: Run) -> None:
    admin = token(*ADMIN_GROUPS, subject="admin")
    path = f"/registry/services/{SERVICE}?namespace={NAMESPACE}"
    run.run([Case("delete", Request("DELETE", path, None, admin), expect(409, "service_not_empty"))], refused=True)
    run.conclude()


def test_instance_id_of_two_services_is_ambiguous(run: Run) -> None:
    admin = token(*ADMIN_GROUPS, subject="admin")
    for front in run.fronts:
        for name in ("ambiguous-a", "ambiguous-b"):
            body = {"namespace": NAMESPACE, "service_name": name, "instance_id": "twin", "host": "a", "port": 1}
            assert front.ask(Request("POST", "/registry/register", body, admin)).status in {200, 201}
    path = f"/registry/instance/twin?namespace={NAMESPACE}"
    run.run([Case("by id", Request("GET", path, None, admin), expect(409, "ambiguous_instance"))], refused=True)
    run.conclude()


def test_discovery_with_a_matching_etag_is_not_modified(run: Run) -> None:
    reader = token("registry-readers", subject="reader")
    path = f"/registry/services/{SERVICE}?namespace={NAMESPACE}"
    conditions = {"*": 304, '"x"': 200, "": 200}
    run.run(
        [
            Case(
                f"{method} with {tag}",
                Request(method, path, None, reader, headers=(("If-None-Match", tag),)),
                expect(status),
            )
            for method in ("GET", "HEAD")
            for tag, status in conditions.items()
        ]
    )
    run.conclude()


def test_discovery_of_an_unknown_service_says_that_it_may_come(fronts: tuple[FrontEnd, FrontEnd]) -> None:
    reader = token("registry-readers", subject="reader")
    for front in fronts:
        answer = front.ask(Request("GET", "/registry/services/nowhere", None, reader))
        assert "try again, or wait for it with ?index=0" in answer.json["detail"], front.name


def test_restart_at_the_same_address_supersedes_the_old_process(fronts: tuple[FrontEnd, FrontEnd]) -> None:
    """Each front end fences what the other has registered."""
    team = token("registry-services", TEAM, subject="restarting")
    key = {"service_name": "restarted", "instance_id": "i-1"}
    for old, new in (fronts, fronts[::-1]):
        for front, start in ((old, "old"), (new, "new")):
            body = registration(**key, incarnation=start)
            assert front.ask(Request("POST", "/registry/register", body, team)).status in {200, 201}
        for front in fronts:
            late = [("heartbeat", {"status": "OUT_OF_SERVICE"}), ("deregister", {})]
            for operation, more in late:
                body = key | more | {"incarnation": "old"}
                answer = front.ask(Request("POST", f"/registry/{operation}", body, team))
                assert (answer.status, answer.code) == (409, "lease_superseded"), (front.name, operation)
            answer = front.ask(Request("POST", "/registry/heartbeat", key | {"incarnation": "new"}, team))
            assert (answer.status, answer.json["status"]) == (200, "UP")
