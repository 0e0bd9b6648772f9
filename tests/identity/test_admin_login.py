"""Login to the admin with the development issuer."""

import re
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import pytest
from django.conf import settings as project
from django.contrib.auth.models import Group
from django.contrib.sessions.models import Session
from django.db.models.functions import Now
from pytest_django import Settings

from registry_project.devstack.issuer import clients
from service_registry.access_models import User
from tests.identity.browser import CALLBACK, Browser

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def browser(settings: Settings) -> Browser:
    settings.OIDC_RP_CLIENT_SECRET = clients.all_clients(project.REGISTRY_DATA_DIR)[clients.ADMIN].secret
    return Browser()


def user(subject: str) -> User:
    return User.objects.get(issuer=project.OIDC_ISSUER, subject=subject)


def test_login_of_an_operator_creates_a_user_and_opens_the_admin(browser: Browser) -> None:
    answer = browser.sign_in("oscar")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/admin/")
    assert browser.get("/admin/").status_code == 200
    oscar = user("oscar")
    assert (oscar.is_staff, oscar.is_superuser, oscar.has_usable_password()) == (True, False, False)
    assert [group.name for group in oscar.groups.all()] == ["registry-operators"]
    assert (oscar.email, oscar.first_name) == ("oscar@example.test", "Oscar, operator")
    assert oscar.username.startswith("oscar-")
    assert oscar.has_perm("service_registry.operate_instance")


def test_authorization_request_has_pkce_state_and_nonce(browser: Browser) -> None:
    sent = browser.begin()
    assert sent["redirect_uri"] == "http://127.0.0.1" + CALLBACK
    assert (sent["response_type"], sent["code_challenge_method"]) == ("code", "S256")
    assert min(len(sent[name]) for name in ("state", "nonce", "code_challenge")) >= 32


def test_two_logins_of_one_person_create_one_user(browser: Browser) -> None:
    browser.sign_in("oscar")
    Browser().sign_in("oscar")
    assert User.objects.count() == 1


def test_login_redirects_to_the_requested_page(browser: Browser) -> None:
    assert browser.sign_in("alice", "/admin/service_registry/").headers["Location"] == "/admin/service_registry/"


def test_login_as_another_user_redirects_to_the_requested_page(browser: Browser) -> None:
    browser.sign_in("oscar")
    assert browser.sign_in("alice", "/admin/auth/").headers["Location"] == "/admin/auth/"


@pytest.mark.parametrize("evil", ["https://evil.example/", "//evil.example/", "javascript:alert(1)"])
def test_login_never_redirects_to_another_site(browser: Browser, evil: str) -> None:
    assert browser.sign_in("alice", evil).headers["Location"] == "/admin/"


def test_login_page_links_to_the_provider_and_keeps_the_next_page(browser: Browser) -> None:
    page = browser.get("/admin/login/", next='/admin/x/?a=1&b="><script>').content.decode()
    (link,) = re.findall(r'href="(/oidc/authenticate/[^"]*)"', page)
    assert "Sign in with your company account" in page
    assert parse_qs(urlsplit(link).query)["next"] == ['/admin/x/?a=1&b="><script>']
    assert '"><script>' not in page
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)


def test_callback_with_unknown_parameters_signs_in(browser: Browser) -> None:
    assert browser.sign_in("alice", session_state="x", foo="\0").status_code == 302


def test_callback_of_another_issuer_is_refused(browser: Browser) -> None:
    answer = browser.get(CALLBACK, **{**browser.pick("alice"), "iss": "https://other.example"})
    assert answer.status_code == 400
    assert not User.objects.exists()


def test_callback_is_accepted_once_and_only_from_the_same_browser(browser: Browser) -> None:
    back = browser.pick("alice")
    assert Browser().get(CALLBACK, **back).status_code == 400
    assert browser.get(CALLBACK, **back).status_code == 302
    assert browser.get(CALLBACK, **back).status_code == 400


@pytest.mark.parametrize("query", [{}, {"code": "c"}, {"state": "s"}, {"code": "c", "state": "s"}, {"error": "e"}])
def test_unrequested_callback_is_refused_and_keeps_the_session(browser: Browser, query: dict[str, str]) -> None:
    browser.sign_in("alice")
    assert browser.get(CALLBACK, **query).status_code == 400
    assert browser.get("/admin/").status_code == 200


def test_callback_with_the_code_of_another_login_is_refused(browser: Browser) -> None:
    """The verifier of PKCE (RFC 7636) binds the code to the browser that requested it."""
    stolen = Browser().pick("alice")["code"]
    assert browser.get(CALLBACK, code=stolen, state=browser.begin()["state"]).status_code == 503
    assert not User.objects.exists()


def test_callback_with_an_error_renders_a_page(browser: Browser) -> None:
    answer = browser.get(CALLBACK, error="access_denied", state=browser.begin()["state"])
    assert (answer.status_code, b"did not sign you in" in answer.content) == (403, True)


def test_login_form_with_callback_parameters_signs_in_no_user(browser: Browser) -> None:
    browser.sign_in("alice")
    browser.client.logout()
    form = {"username": user("alice").username, "password": ""}
    assert browser.client.post("/admin/login/?code=c&state=s", form).status_code == 200
    assert browser.get("/admin/").status_code == 302


def test_login_of_a_local_user_by_password_opens_the_admin(browser: Browser) -> None:
    User.objects.create_superuser("root", password="a long password")
    browser.client.post("/admin/login/?next=/admin/", {"username": "root", "password": "a long password"})
    assert browser.get("/admin/").status_code == 200


def test_login_page_without_password_login_offers_the_company_account_alone(
    browser: Browser, settings: Settings
) -> None:
    settings.REGISTRY_PASSWORD_LOGIN = False
    settings.AUTHENTICATION_BACKENDS = ["service_registry.identity.admin_login.AdminLoginBackend"]
    User.objects.create_superuser("root", password="a long password")
    page = browser.get("/admin/login/").content
    assert (b"company account" in page, b'type="password"' in page) == (True, False)
    browser.client.post("/admin/login/?next=/admin/", {"username": "root", "password": "a long password"})
    assert browser.get("/admin/").status_code == 302


def test_login_without_admin_permissions_gets_a_page_and_no_session(browser: Browser) -> None:
    Group.objects.get(name="registry-readers").permissions.clear()
    browser.sign_in("alice")
    answer = browser.sign_in("rita")
    assert (answer.status_code, b"none of your groups" in answer.content) == (403, True)
    assert user("rita").is_staff is False
    assert browser.get("/admin/").status_code == 302


def test_login_sets_groups_and_admin_access_anew(browser: Browser) -> None:
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


def test_deactivated_user_loses_the_session_and_cannot_sign_in(browser: Browser) -> None:
    browser.sign_in("alice")
    User.objects.update(is_active=False)
    assert browser.get("/admin/").status_code == 302
    answer = browser.sign_in("alice")
    assert (answer.status_code, b"deactivated" in answer.content) == (403, True)
    assert browser.get("/admin/").status_code == 302
    assert user("alice").is_active is False


def sign_in_by_provider(browser: Browser) -> None:
    browser.sign_in("alice")


def sign_in_by_password(browser: Browser) -> None:
    User.objects.create_superuser("root", password="a long password")
    browser.client.post("/admin/login/", {"username": "root", "password": "a long password"})


@pytest.mark.parametrize("sign_in", [sign_in_by_provider, sign_in_by_password])
def test_session_ends_at_a_fixed_time_after_its_login(browser: Browser, sign_in: Callable[[Browser], None]) -> None:
    sign_in(browser)
    ends_at = Session.objects.get().expire_date
    session = browser.client.session
    assert 0 < session.get_expiry_age() <= 10 * 3600
    browser.begin()
    session["note"] = "saved later"
    session.save()
    assert Session.objects.get().expire_date == ends_at
    Session.objects.update(expire_date=Now())
    assert browser.get("/admin/").status_code == 302


def test_login_while_signed_in_that_fails_leaves_the_session_as_it_is(browser: Browser) -> None:
    browser.sign_in("alice")
    ends_at = Session.objects.get().expire_date
    browser.get(CALLBACK, error="access_denied", state=browser.begin()["state"])
    assert browser.client.post("/admin/login/", {"username": "alice", "password": "wrong"}).status_code == 200
    assert Session.objects.get().expire_date == ends_at
    assert browser.get("/admin/").status_code == 200
