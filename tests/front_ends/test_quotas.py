"""Quotas of owners through every front end."""

from collections.abc import Iterator
from itertools import count

import pytest

from tests.client import registration, token
from tests.front_ends.client import Answer, FrontEnd, Request
from tests.front_ends.servers import serving

QUOTAS = {
    "REGISTRY_MAX_INSTANCES_PER_OWNER": "4",
    "REGISTRY_MAX_SERVICES_PER_OWNER": "3",
    "REGISTRY_MAX_OVERRIDES_WITHOUT_INSTANCE": "2",
}
OVERRIDE = {"status": "OUT_OF_SERVICE", "reason": "test"}
numbers = count()


@pytest.fixture(scope="module")
def small_fronts(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FrontEnd, FrontEnd]]:
    with serving(database_url, tmp_path_factory.mktemp("quotas"), "-quotas", variables=QUOTAS) as started:
        yield started


@pytest.fixture(params=[0, 1], ids=["asgi", "wsgi"])
def front(request: pytest.FixtureRequest, small_fronts: tuple[FrontEnd, FrontEnd]) -> FrontEnd:
    return small_fronts[request.param]


@pytest.fixture
def owner() -> str:
    """A team that no other test uses."""
    return f"team-quota-{next(numbers)}"


def post(front: FrontEnd, operation: str, body: object, owner: str) -> Answer:
    bearer = token("registry-services", owner, subject=owner)
    return front.ask(Request("POST", f"/registry/{operation}", body, bearer))


def put_override(front: FrontEnd, service_name: str, instance_id: str, *groups: str) -> Answer:
    bearer = token(*groups, subject="someone")
    return front.ask(Request("PUT", f"/registry/instance/{service_name}/{instance_id}/status", OVERRIDE, bearer))


def assert_refused(answer: Answer, setting: str) -> None:
    assert (answer.status, answer.code) == (403, "quota_exceeded"), str(answer)
    assert f"{QUOTAS[setting]} " in answer.json["detail"]
    assert setting in answer.json["detail"]


def test_services_left_empty_count_against_the_quota_of_their_owner(front: FrontEnd, owner: str) -> None:
    for number in range(3):
        assert post(front, "register", registration(f"{owner}-{number}", "a"), owner).status == 201
        assert post(front, "deregister", {"service_name": f"{owner}-{number}", "instance_id": "a"}, owner).status == 204
    refused = post(front, "register", registration(f"{owner}-3", "a"), owner)
    assert_refused(refused, "REGISTRY_MAX_SERVICES_PER_OWNER")
    array = [registration(f"{owner}-3", "a"), registration(f"{owner}-0", "a")]
    assert post(front, "register", array, owner).items == [(403, "quota_exceeded"), (201, None)]
    assert post(front, "register", registration(f"{owner}-0", "a"), owner).status == 200


def test_instances_of_all_services_count_against_the_quota_of_their_owner(front: FrontEnd, owner: str) -> None:
    items = [registration(f"{owner}-{number % 2}", f"i-{number}") for number in range(5)]
    assert post(front, "register", items, owner).items == [(201, None)] * 4 + [(403, "quota_exceeded")]
    assert_refused(post(front, "register", items[4], owner), "REGISTRY_MAX_INSTANCES_PER_OWNER")
    assert post(front, "register", items[0], owner).status == 200


def test_overrides_without_an_instance_count_against_the_quota_of_their_owner(front: FrontEnd, owner: str) -> None:
    own = ("registry-services", owner)
    assert post(front, "register", registration(owner, "here"), owner).status == 201
    for instance_id in ("gone-1", "gone-2", "gone-1", "here"):
        assert put_override(front, owner, instance_id, *own).status == 200
    assert_refused(put_override(front, owner, "gone-3", *own), "REGISTRY_MAX_OVERRIDES_WITHOUT_INSTANCE")
    assert put_override(front, owner, "gone-3", "registry-operators").status == 200
    bearer = token(*own, subject="someone")
    for instance_id in ("gone-1", "gone-2"):
        path = f"/registry/instance/{owner}/{instance_id}/status"
        assert front.ask(Request("DELETE", path, None, bearer)).status == 200
    assert put_override(front, owner, "gone-4", *own).status == 200
