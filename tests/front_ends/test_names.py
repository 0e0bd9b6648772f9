"""Names of real fleets, and any legal instance id, through every front end."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.client import registration, token
from tests.front_ends.calls import TEAM
from tests.front_ends.client import NAMESPACE, Answer, FrontEnd, Request
from tests.front_ends.fleets import FLEETS, TRICKY_IDS, path_of, random_ids
from tests.front_ends.running import Case, Check, Run, expect, expect_items

RANDOM_IDS, SEED = 60, 18
OVERRIDE = {"status": "OUT_OF_SERVICE", "reason": "x"}
QUERY = f"?namespace={NAMESPACE}"


@pytest.fixture
def bearer() -> str:
    """A token that permits everything and owns the services of the fleets."""
    return token("registry-admins", TEAM, subject="admin")


def shows(status: int, wanted: dict[str, Any], *within: str | int) -> Check:
    """Return a check of members of an instance, and where it is in the document."""

    def check(answer: Answer) -> str | None:
        if answer.status != status:
            return f"expected {status}, and the answer is {answer}"
        document = answer.json
        for part in within:
            document = document[part]
        found = {name: document.get(name) for name in wanted}
        return None if found == wanted else f"expected {wanted}, and found {found}"

    return check


def calls_of(fleet: str) -> Iterator[tuple[str, str, Any, Check]]:
    """Yield method, path, body and check of each call in the life of an instance."""
    service_name, instance_id, host, fields = FLEETS[fleet]
    key = {"namespace": NAMESPACE, "service_name": service_name, "instance_id": instance_id}
    body = registration(host=host, **key | fields)
    path = path_of("instance", service_name, instance_id)
    named = {"service_name": service_name.lower(), "instance_id": instance_id}
    shown = named | {"host": host.lower().removesuffix("."), "metadata": body["metadata"]}
    yield "POST", "/registry/register", body, shows(201, shown)
    yield "POST", "/registry/heartbeat", key, shows(200, named)
    yield "GET", f"{path}{QUERY}", None, shows(200, shown)
    yield "GET", f"{path}/{QUERY}", None, shows(200, shown)
    yield "GET", f"{path}/health{QUERY}", None, shows(200, named | {"healthy": True})
    yield "GET", f"{path_of('services', service_name)}/health{QUERY}", None, shows(200, {"healthy": 1, "total": 1})
    yield "GET", f"{path_of('instance', instance_id)}{QUERY}", None, shows(200, shown)
    yield "GET", f"{path_of('services', service_name)}{QUERY}", None, shows(200, shown, "instances", 0)
    yield (
        "GET",
        f"/registry/services{QUERY}&name={service_name}",
        None,
        shows(200, shown, "services", 0, "instances", 0),
    )
    yield "PUT", f"{path}/status{QUERY}", OVERRIDE, shows(200, {"status": "OUT_OF_SERVICE"}, "instance")
    yield "DELETE", f"{path}/status{QUERY}", None, shows(200, {"status": "UP"}, "instance")
    yield "GET", f"/registry/changes{QUERY}&service={service_name}", None, shows(200, named, "changes", -1)
    yield "POST", "/registry/deregister", key, expect(204)
    yield "GET", f"{path}{QUERY}", None, expect(404, "instance_not_found", reason="deregistered")


@pytest.mark.parametrize("fleet", FLEETS)
def test_registration_of_a_real_fleet_is_served_under_its_name(run: Run, bearer: str, fleet: str) -> None:
    calls = calls_of(fleet)
    run.run(
        [Case(f"{method} {path}", Request(method, path, body, bearer), check) for method, path, body, check in calls]
    )
    run.conclude()


def test_service_name_in_any_case_is_one_service(run: Run, bearer: str) -> None:
    def named(name: str, instance_id: str = "a") -> dict[str, Any]:
        return {"namespace": NAMESPACE, "service_name": name, "instance_id": instance_id}

    folded = {"service_name": "fold:a.b_c", "instance_id": "a"}
    other = token("registry-services", "team-other", subject="other")
    twice = [registration(**named(name, "b")) for name in ("fold:a.b_c", "FOLD:a.B_c")]
    owners, reason = {"owners": [TEAM]}, {"reason": "x"}
    path = path_of("services", "Fold:A.b_C")
    calls: list[tuple[str, str, Any, Check]] = [
        ("POST", "/registry/register", registration(**named("fold:A.b_c")), shows(201, folded)),
        ("POST", "/registry/register", registration(**named("FOLD:A.B_C")), shows(200, folded)),
        ("POST", "/registry/register", twice, expect_items((201, None), (400, "invalid"))),
        ("POST", "/registry/heartbeat", named("FOLD:A.B_C"), shows(200, folded)),
        ("GET", f"/registry/services{QUERY}&name=FOLD:*", None, shows(200, {"name": "fold:a.b_c"}, "services", 0)),
        ("PUT", f"{path}/owners{QUERY}", owners, shows(200, {"name": "fold:a.b_c"})),
        ("POST", f"{path}/release{QUERY}", reason, expect(200)),
        (
            "POST",
            "/registry/deregister",
            [named("FOLD:A.B_C", each) for each in "ab"],
            expect_items(*[(204, None)] * 2),
        ),
        ("DELETE", f"{path}{QUERY}", None, expect(204)),
    ]
    run.run(
        [Case(f"{method} {path}", Request(method, path, body, bearer), check) for method, path, body, check in calls]
    )
    claim = Request("POST", "/registry/register", registration(**named("FOLD:A.B_C")), other)
    run.run([Case("a claim of the reserved name", claim, expect(403, "not_owner"))], refused=True)
    run.conclude()


def test_entity_tags_and_watches_compare_folded_names(run: Run, bearer: str) -> None:
    for front in run.fronts:
        body = registration("Tagged", "a", namespace=NAMESPACE)
        begun = front.ask(Request("GET", "/registry/watch", None, bearer)).json["index"]
        assert front.ask(Request("POST", "/registry/register", body, bearer)).status == 201
        tag = front.ask(Request("GET", f"/registry/services/tagged{QUERY}", None, bearer)).headers["etag"]
        condition = (("If-None-Match", tag),)
        upper = Request("GET", f"/registry/services/TAGGED{QUERY}", None, bearer, headers=condition)
        assert front.ask(upper).status == 304
        watch = Request("GET", f"/registry/watch{QUERY}&service=TAGGED&index={begun}&wait=10s", None, bearer)
        assert {change["service_name"] for change in front.ask(watch).json["changes"]} == {"tagged"}


METADATA = {"app.kubernetes.io/name": "a=b&c", "urn:fleet@eu": "1", "k" * 128: "ü" * 1024}


@pytest.mark.parametrize("key", METADATA)
def test_filter_by_a_key_with_dots_colons_and_slashes_finds_the_instance(run: Run, bearer: str, key: str) -> None:
    fleet = [
        registration("filtered", name, namespace=NAMESPACE, metadata=METADATA | changed)
        for name, changed in (("same", {}), ("other", {key: "other"}))
    ]
    for front in run.fronts:
        front.ask(Request("POST", "/registry/register", fleet, bearer))
    encoded = f"metadata.{quote(key, safe='')}={quote(METADATA[key])}"
    plain = f"metadata.{key}={quote(METADATA[key], safe='')}"
    paths = {"/registry/services/filtered": finds(), "/registry/services": finds("services", 0)}
    run.run(
        [
            Case(f"{path}{query}", Request("GET", f"{path}{QUERY}&{query}", None, bearer), check)
            for path, check in paths.items()
            for query in (encoded, plain)
        ]
    )
    run.conclude()


def finds(*within: str | int) -> Check:
    """Return a check that the instance `same` is found alone."""

    def check(answer: Answer) -> str | None:
        document = answer.json
        for part in within:
            document = document[part]
        found = [instance["instance_id"] for instance in document["instances"]]
        return None if found == ["same"] else f"found {found}"

    return check


def test_refused_key_of_metadata_is_named_when_it_is_legal(run: Run, bearer: str) -> None:
    named: dict[str, tuple[dict[str, str], str]] = {
        "a secret": ({"db.PASSWORD": "sesame", "a": "b"}, "metadata.db.PASSWORD"),
        "a long value": ({"app/notes": "sesame" * 400}, "metadata.app/notes"),
        "a control character": ({"app/notes": "sesame\n"}, "metadata.app/notes"),
        "an illegal key": ({"sesame seed": "x"}, "metadata.?"),
        "a long key": ({"sesame" * 22: "x"}, "metadata.?"),
        "too much": ({f"k-{number}": "sesame" * 300 for number in range(10)}, "metadata"),
    }

    def names(path: str) -> Check:
        def check(answer: Answer) -> str | None:
            good = answer.code == "invalid" and [*answer.json["errors"]] == [path] and b"sesame" not in answer.body
            return None if good else f"expected {path}, and the answer is {answer}"

        return check

    run.run(
        [
            Case(name, Request("POST", "/registry/register", registration(metadata=metadata), bearer), names(path))
            for name, (metadata, path) in named.items()
        ],
        refused=True,
    )
    run.conclude()


def test_longest_legal_fields_are_accepted(run: Run, bearer: str) -> None:
    """The metadata is sent as escapes, which are three times as long as UTF-8."""
    host = ".".join(["a" * 63] * 3 + ["b" * 61])
    metadata = {f"{number:0128}": "ü" * 960 for number in range(8)}  # 16 KiB
    fields = {"host": f"{host}.", "metadata": metadata, "tags": [f"{number:050}" for number in range(64)]}
    service_name, instance_id = "A" + "b:" * 63 + "C", "i" * 255
    body = registration(service_name, instance_id, namespace=NAMESPACE, **fields)
    shown = {"service_name": service_name.lower(), "host": host, "metadata": metadata}
    run.run([Case("register", Request("POST", "/registry/register", body, bearer), shows(201, shown))])
    run.conclude()


def wrong_ids(front: FrontEnd, bearer: str, service_name: str, ids: list[str]) -> list[str]:
    """Return the ids with which a call reached another instance, or none.

    Each instance is registered, read and overridden by its path, and deregistered.
    """
    keys = [{"namespace": f"{NAMESPACE}-ids", "service_name": service_name, "instance_id": each} for each in ids]
    wrong = []
    for start in range(0, len(keys), 1000):
        registered = [registration(**key) for key in keys[start : start + 1000]]
        answer = front.ask(Request("POST", "/registry/register", registered, bearer))
        assert answer.items == [(201, None)] * len(registered), str(answer)
    for each in ids:
        path = path_of("instance", service_name, each)
        read = front.ask(Request("GET", f"{path}{QUERY}-ids", None, bearer))
        alone = front.ask(Request("GET", f"{path_of('instance', each)}{QUERY}-ids", None, bearer))
        health = front.ask(Request("GET", f"{path}/health{QUERY}-ids", None, bearer))
        override = front.ask(Request("PUT", f"{path}/status{QUERY}-ids", OVERRIDE, bearer))
        named = tuple(answer.json.get("instance_id") for answer in (read, alone, health, override))
        wrong += [] if named == (each,) * 4 else [f"{each}: {named}"]
    for key in keys:
        answer = front.ask(Request("POST", "/registry/deregister", key, bearer))
        wrong += [] if answer.status == 204 else [f"{key['instance_id']}: deregister {answer.status}"]
    return wrong


@pytest.mark.parametrize("number", [0, 1], ids=["asgi", "wsgi"])
def test_path_of_any_legal_id_reaches_that_instance(run: Run, bearer: str, number: int) -> None:
    ids = sorted({*TRICKY_IDS, *random_ids(RANDOM_IDS, SEED)})
    assert wrong_ids(run.fronts[number], bearer, "any-id", ids) == []
