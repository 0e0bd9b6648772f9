"""Signing in to the admin, over HTTP against the development issuer and against worse ones."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from django.conf import settings as project
from django.contrib.auth.models import Group
from pytest_django import Settings

from registry_project.devstack.issuer import clients
from service_registry.models import User
from tests.identity.browsing import CALLBACK, Browser

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def browser(settings: Settings) -> Browser:
    settings.OIDC_RP_CLIENT_SECRET = clients.all_clients(project.REGISTRY_DATA_DIR)[clients.ADMIN].secret
    return Browser()


def user(subject: str) -> User:
    return User.objects.get(issuer=project.OIDC_ISSUER, subject=subject)


def test_an_operator_signs_in(browser: Browser) -> None:
    answer = browser.sign_in("oscar")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/admin/")
    assert browser.get("/admin/").status_code == 200
    oscar = user("oscar")
    assert (oscar.is_staff, oscar.is_superuser, oscar.has_usable_password()) == (True, False, False)
    assert [group.name for group in oscar.groups.all()] == ["registry-operators"]
    assert (oscar.email, oscar.first_name) == ("oscar@example.test", "Oscar, operator")
    assert oscar.username.startswith("oscar-")
    assert oscar.has_perm("service_registry.operate_instance")


def test_the_request_is_for_a_code_with_pkce_state_and_nonce(browser: Browser) -> None:
    asked = browser.begin()
    assert asked["redirect_uri"] == "http://127.0.0.1" + CALLBACK
    assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
    assert min(len(asked[name]) for name in ("state", "nonce", "code_challenge")) >= 32


def test_signing_in_twice_is_one_user(browser: Browser) -> None:
    browser.sign_in("oscar")
    Browser().sign_in("oscar")
    assert User.objects.count() == 1


def test_it_goes_on_to_where_the_operator_wanted_to_be(browser: Browser) -> None:
    assert browser.sign_in("alice", "/admin/service_registry/").headers["Location"] == "/admin/service_registry/"


def test_it_goes_on_there_for_another_user_too(browser: Browser) -> None:
    browser.sign_in("oscar")
    assert browser.sign_in("alice", "/admin/auth/").headers["Location"] == "/admin/auth/"


@pytest.mark.parametrize("evil", ["https://evil.example/", "//evil.example/", "javascript:alert(1)"])
def test_it_sends_nobody_elsewhere(browser: Browser, evil: str) -> None:
    assert browser.sign_in("alice", evil).headers["Location"] == "/admin/"


def test_the_login_page_offers_it_and_keeps_the_way_on(browser: Browser) -> None:
    page = browser.get("/admin/login/", next='/admin/x/?a=1&b="><script>').content.decode()
    (link,) = re.findall(r'href="(/oidc/authenticate/[^"]*)"', page)
    assert "Sign in with your company account" in page
    assert parse_qs(urlsplit(link).query)["next"] == ['/admin/x/?a=1&b="><script>']
    assert '"><script>' not in page
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)


def test_parameters_that_we_do_not_know_do_no_harm(browser: Browser) -> None:
    assert browser.sign_in("alice", session_state="x", foo="\0").status_code == 302


def test_an_answer_of_another_issuer_is_refused(browser: Browser) -> None:
    answer = browser.get(CALLBACK, **{**browser.pick("alice"), "iss": "https://other.example"})
    assert answer.status_code == 400
    assert not User.objects.exists()


def test_an_answer_is_taken_once_and_by_the_browser_that_asked(browser: Browser) -> None:
    back = browser.pick("alice")
    assert Browser().get(CALLBACK, **back).status_code == 400
    assert browser.get(CALLBACK, **back).status_code == 302
    assert browser.get(CALLBACK, **back).status_code == 400


@pytest.mark.parametrize("query", [{}, {"code": "c"}, {"state": "s"}, {"code": "c", "state": "s"}, {"error": "e"}])
def test_an_answer_that_nobody_asked_for_ends_no_session(browser: Browser, query: dict[str, str]) -> None:
    browser.sign_in("alice")
    assert browser.get(CALLBACK, **query).status_code == 400
    assert browser.get("/admin/").status_code == 200


def test_a_code_of_another_login_is_refused(browser: Browser) -> None:
    """The verifier of PKCE (RFC 7636) ties the code to the browser that asked for it."""
    stolen = Browser().pick("alice")["code"]
    assert browser.get(CALLBACK, code=stolen, state=browser.begin()["state"]).status_code == 503
    assert not User.objects.exists()


def test_a_refusal_of_the_issuer_is_a_page(browser: Browser) -> None:
    answer = browser.get(CALLBACK, error="access_denied", state=browser.begin()["state"])
    assert (answer.status_code, b"did not sign you in" in answer.content) == (403, True)


def test_a_password_is_not_looked_at_by_this_backend(browser: Browser) -> None:
    browser.sign_in("alice")
    browser.client.logout()
    form = {"username": user("alice").username, "password": ""}
    assert browser.client.post("/admin/login/?code=c&state=s", form).status_code == 200
    assert browser.get("/admin/").status_code == 302


def test_a_local_user_gets_in_with_a_password(browser: Browser) -> None:
    User.objects.create_superuser("root", password="a long password")
    browser.client.post("/admin/login/?next=/admin/", {"username": "root", "password": "a long password"})
    assert browser.get("/admin/").status_code == 200


def test_one_whose_groups_grant_nothing_gets_a_page_and_no_session(browser: Browser) -> None:
    Group.objects.get(name="registry-readers").permissions.clear()
    browser.sign_in("alice")
    answer = browser.sign_in("rita")
    assert (answer.status_code, b"none of your groups" in answer.content) == (403, True)
    assert user("rita").is_staff is False
    assert browser.get("/admin/").status_code == 302


def test_groups_and_staff_are_set_anew_at_each_login(browser: Browser) -> None:
    browser.sign_in("oscar")
    oscar = user("oscar")
    oscar.groups.add(Group.objects.get(name="registry-admins"))
    User.objects.update(is_superuser=True)
    browser.sign_in("oscar")
    oscar = user("oscar")
    assert (oscar.is_staff, oscar.is_superuser) == (True, False)
    assert [group.name for group in oscar.groups.all()] == ["registry-operators"]
    Group.objects.all().delete()
    assert browser.sign_in("oscar").status_code == 403
    assert user("oscar").is_staff is False


def test_a_deactivated_user_is_out_at_the_next_request_and_stays_out(browser: Browser) -> None:
    browser.sign_in("alice")
    User.objects.update(is_active=False)
    assert browser.get("/admin/").status_code == 302
    answer = browser.sign_in("alice")
    assert (answer.status_code, b"deactivated" in answer.content) == (403, True)
    assert browser.get("/admin/").status_code == 302
    assert user("alice").is_active is False


def test_a_session_ends_within_a_working_day(browser: Browser) -> None:
    browser.sign_in("alice")
    assert browser.client.session.get_expiry_age() <= 10 * 3600
