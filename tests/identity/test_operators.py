"""Which user a person's claims make."""

import threading
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection

from service_registry.identity.operators import signed_in
from service_registry.models import User

pytestmark = pytest.mark.django_db

CLAIMS = {"iss": "https://issuer.example", "sub": "1", "email": "root@example.test", "preferred_username": "root"}


def test_nobody_becomes_another_by_name_or_e_mail() -> None:
    local = User.objects.create_superuser("root", "root@example.test")
    people = [signed_in(CLAIMS), signed_in({**CLAIMS, "sub": "2"}), signed_in({**CLAIMS, "iss": "https://b.example"})]
    assert len({local.pk, *(person.pk for person in people)}) == 4
    assert signed_in(CLAIMS).pk == people[0].pk


@pytest.mark.parametrize(
    "claims",
    [
        {"preferred_username": 7, "email": ["a"], "name": None, "groups": 7},
        {"preferred_username": "\n", "email": "\0", "name": "\ud800", "family_name": "x" * 999},
        {"preferred_username": "é" * 200, "email": f"{'e' * 250}@b.example", "given_name": "g" * 255},
        {"preferred_username": "<b>&'\"", "name": "<script>"},
        {"sub": "\U0001f600" * 255},
    ],
)
def test_strange_claims_make_a_user_all_the_same(claims: dict[str, Any]) -> None:
    signed_in({"iss": "https://issuer.example", "sub": "1", **claims}).full_clean(exclude=["password"])


def test_first_logins_at_once_are_one_user(transactional_db: None) -> None:
    def work() -> None:
        made.append(signed_in({**CLAIMS, "groups": ["registry-readers"]}).pk)
        connection.close()

    made: list[int] = []
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [User.objects.get().pk] * 4


def test_a_permission_of_its_own_makes_an_operator_too() -> None:
    person = signed_in(CLAIMS)
    assert not person.is_staff
    person.user_permissions.add(Permission.objects.get(codename="view_change"))
    assert signed_in(CLAIMS).is_staff
