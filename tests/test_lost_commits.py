"""A verb whose commit was done and whose answer was lost is done again: nothing is lost, and what that costs."""

from collections.abc import Iterator

import pytest

from service_registry.expiry.sweep import sweep
from service_registry.models import Change
from tests import ageing
from tests.client import Api
from tests.losing import Losing, losing_way

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def way(transactional_db: None) -> Iterator[Losing]:
    with losing_way() as relay:
        yield relay


def kinds() -> list[str]:
    before_the_first = {"log_started", "service_created"}
    return list(Change.objects.order_by("pk").exclude(kind__in=before_the_first).values_list("kind", flat=True))


def test_a_release_is_one_change(way: Losing, payments: Api, operator: Api) -> None:
    payments.register()
    way.to_lose = 1
    answer = operator.post("/registry/services/web/release", {"reason": "scaled in"})
    assert (answer.status, answer.json, way.lost) == (200, {"released": 0}, 1)
    assert kinds() == ["registered", "released"]


def test_an_operators_second_word_is_a_second_change(way: Losing, payments: Api, operator: Api) -> None:
    payments.register()
    for _ in range(2):
        operator.post("/registry/services/web/release", {"reason": "scaled in"})
    assert kinds() == ["registered", "released", "released"]


def test_a_registration_is_one_change_and_its_answer_200(way: Losing, payments: Api) -> None:
    way.to_lose = 1
    answer = payments.register()
    assert (answer.status, way.lost) == (200, 1)
    assert kinds() == ["registered"]


def test_a_beat_that_brings_back_is_one_change_and_does_not_say_so(way: Losing, payments: Api) -> None:
    payments.register()
    ageing.age_leases(60)
    sweep()
    way.to_lose = 1
    answer = payments.heartbeat()
    assert (answer.status, way.lost) == (200, 1)
    assert "recovered" not in answer.json
    assert kinds() == ["registered", "expired", "recovered"]


def test_a_deregistration_is_one_change(way: Losing, payments: Api) -> None:
    payments.register()
    way.to_lose = 1
    assert (payments.deregister().status, way.lost) == (204, 1)
    assert kinds() == ["registered", "deregistered"]
