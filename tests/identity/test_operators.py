"""Operators: the user that the claims of a login create."""

import threading
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection

from service_registry.access_models import User
from service_registry.identity.operators import sign_in_operator

pytestmark = pytest.mark.django_db

CLAIMS = {"iss": "https://issuer.example", "sub": "1", "email": "root@example.test", "preferred_username": "root"}


def test_login_with_the_name_or_email_of_another_creates_a_new_user() -> None:
    local = User.objects.create_superuser("root", "root@example.test")
    people = [
        sign_in_operator(CLAIMS),
        sign_in_operator({**CLAIMS, "sub": "2"}),
        sign_in_operator({**CLAIMS, "iss": "https://b.example"}),
    ]
    assert len({local.pk, *(person.pk for person in people)}) == 4
    assert sign_in_operator(CLAIMS).pk == people[0].pk


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
def test_login_with_strange_claims_creates_a_valid_user(claims: dict[str, Any]) -> None:
    sign_in_operator({"iss": "https://issuer.example", "sub": "1", **claims}).full_clean(exclude=["password"])


def test_concurrent_first_logins_create_one_user(transactional_db: None) -> None:
    def work() -> None:
        made.append(sign_in_operator({**CLAIMS, "groups": ["registry-readers"]}).pk)
        connection.close()

    made: list[int] = []
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [User.objects.get().pk] * 4


def test_user_with_an_individual_permission_has_admin_access() -> None:
    person = sign_in_operator(CLAIMS)
    assert not person.is_staff
    person.user_permissions.add(Permission.objects.get(codename="view_change"))
    assert sign_in_operator(CLAIMS).is_staff
