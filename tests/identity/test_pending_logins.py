"""Logins that have begun: the cookie of each, and the browsers that may finish it."""

import time

import pytest
from django.conf import settings as project
from django.contrib.sessions.models import Session
from django.core import signing
from django.utils.http import urlencode
from pytest_django import Settings

from registry_project.devstack.issuer import clients
from service_registry.identity.pending_logins import COOKIE_PREFIX, MAX_AGE_SECONDS
from tests.identity.browser import CALLBACK, Browser

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def browser(settings: Settings) -> Browser:
    settings.OIDC_RP_CLIENT_SECRET = clients.all_clients(project.REGISTRY_DATA_DIR)[clients.ADMIN].secret
    return Browser()


def test_login_that_begins_sets_a_cookie_for_itself_alone(browser: Browser, settings: Settings) -> None:
    settings.SESSION_COOKIE_SECURE = True
    sent = browser.begin()
    (cookie,) = browser.client.cookies.values()
    assert cookie.key == COOKIE_PREFIX + sent["state"]
    attributes = {name: value for name, value in cookie.items() if value and name != "expires"}
    expected = {"path": "/oidc/", "max-age": 600, "secure": True, "httponly": True, "samesite": "Lax"}
    assert attributes == expected
    assert not Session.objects.exists()


def test_logins_of_two_tabs_finish_in_any_order(browser: Browser) -> None:
    first, second = browser.pick("alice", "/admin/auth/"), browser.pick("alice", "/admin/service_registry/")
    assert browser.get(CALLBACK, **second).headers["Location"] == "/admin/service_registry/"
    assert browser.get(CALLBACK, **first).headers["Location"] == "/admin/auth/"


@pytest.mark.parametrize("ending", [{}, {"iss": "https://other.example"}, {"error": "access_denied"}, {"code": "x"}])
def test_callback_deletes_the_cookie_of_its_login_however_it_ends(browser: Browser, ending: dict[str, str]) -> None:
    kept = browser.begin()["state"]
    back = browser.pick("alice")
    response = browser.get(CALLBACK, **{**back, **ending})
    deleted = {name for name, cookie in response.cookies.items() if cookie["max-age"] == 0}
    assert deleted - {"messages"} == {COOKIE_PREFIX + back["state"]}
    assert browser.client.cookies[COOKIE_PREFIX + kept].value


def test_login_whose_cookie_was_copied_is_not_finished_twice(browser: Browser) -> None:
    """The provider redeems a code once (RFC 6749, 4.1.2)."""
    back = browser.pick("alice")
    thief = Browser()
    name = COOKIE_PREFIX + back["state"]
    thief.client.cookies[name] = browser.client.cookies[name].value
    assert browser.get(CALLBACK, **back).status_code == 302
    assert thief.get(CALLBACK, **back).status_code == 503
    assert thief.get("/admin/").status_code == 302


def sign(name: str, age_seconds: float = 0) -> str:
    """Return the value of a cookie that was signed some time ago."""

    class Signer(signing.TimestampSigner):
        def timestamp(self) -> str:
            return signing.b62_encode(int(time.time() - age_seconds))

    login = {"next_url": None, "state": name.removeprefix(COOKIE_PREFIX), "nonce": "n", "code_verifier": "v" * 64}
    return Signer(salt=name).sign_object(login)


def callback_status(name: str, value: str, state: str) -> int:
    browser = Browser()
    browser.client.cookies[name] = value
    # The provider's answer is refused for its issuer once the login is found.
    page = browser.get(CALLBACK, state=state, code="c", iss="https://other.example")
    assert page.status_code == 400
    return b"not from the provider" in page.content


def test_cookie_is_valid_for_its_own_state_and_ten_minutes() -> None:
    name, other = COOKIE_PREFIX + "a" * 32, COOKIE_PREFIX + "b" * 32
    assert callback_status(name, sign(name, MAX_AGE_SECONDS - 60), "a" * 32)
    assert not callback_status(name, sign(name, MAX_AGE_SECONDS + 1), "a" * 32)
    assert not callback_status(name, sign(name), "b" * 32)
    assert not callback_status(other, sign(name), "b" * 32)
    assert not callback_status(name, sign(name)[:-1], "a" * 32)
    assert not callback_status(name, "x" + sign(name), "a" * 32)
    assert not callback_status(COOKIE_PREFIX, sign(COOKIE_PREFIX), "c")


@pytest.mark.parametrize(
    "name", [f"{COOKIE_PREFIX}a,b", f"{COOKIE_PREFIX}\u00e9", COOKIE_PREFIX, f"{COOKIE_PREFIX}{'x' * 99}"]
)
def test_cookies_with_names_of_another_form_are_ignored(browser: Browser, name: str) -> None:
    cookies = "; ".join(f"{name}{number}=x" for number in range(10))
    response = browser.client.get("/oidc/authenticate/", headers={"Cookie": cookies})
    assert (response.status_code, len(response.cookies)) == (302, 1)


def test_login_for_a_page_with_a_long_address_leads_to_the_first_page(browser: Browser) -> None:
    long = "/admin/service_registry/instance/?" + urlencode({"q": "x" * 600})
    assert browser.sign_in("alice", long).headers["Location"] == "/admin/"
