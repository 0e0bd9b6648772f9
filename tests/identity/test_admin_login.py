"""Signing in to the admin, over HTTP against the development issuer and against worse ones."""

import json
import re
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
import requests
from django.conf import settings as project
from django.contrib.auth.models import Group, Permission
from django.http import HttpResponse
from django.test import Client
from pytest_django import Settings

from registry_project.embedded.issuer import clients
from service_registry.identity import admin_login, keys, login_endpoints
from service_registry.identity.login_endpoints import LoginEndpoints, with_secret
from service_registry.identity.operators import signed_in
from service_registry.models import User
from tests.identity.issuing import Handler, Issuer, private_key, signed, until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls("tests.identity.mounted")]

CALLBACK = "/oidc/callback/"


class Browser:
    """A browser at the registry, whose redirects are followed by hand."""

    def __init__(self) -> None:
        self.client = Client(SERVER_NAME="127.0.0.1", raise_request_exception=False)

    def get(self, path: str, **query: str) -> HttpResponse:
        return self.client.get(path, query)  # type: ignore[return-value]

    def begin(self, next_path: str = "") -> dict[str, str]:
        """Begin a login; what the browser is sent to the issuer with."""
        sent = self.get("/oidc/authenticate/", **({"next": next_path} if next_path else {}))
        assert sent.status_code == 302, sent.content
        self.target = sent.headers["Location"]
        return dict(parse_qsl(urlsplit(self.target).query))

    def pick(self, subject: str, next_path: str = "") -> dict[str, str]:
        """Begin a login and pick a person at the development issuer; what the browser is sent back with."""
        asked = self.begin(next_path)
        url = self.target.partition("?")[0]
        back = requests.post(url, data={**asked, "subject": subject}, allow_redirects=False, timeout=5)
        assert back.headers["Location"].startswith("http://127.0.0.1" + CALLBACK)
        return dict(parse_qsl(urlsplit(back.headers["Location"]).query))

    def sign_in(self, subject: str, next_path: str = "", **more: str) -> HttpResponse:
        return self.get(CALLBACK, **self.pick(subject, next_path), **more)


@pytest.fixture
def browser(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Browser:
    settings.OIDC_RP_CLIENT_SECRET = clients.all_clients(project.REGISTRY_DATA_DIR)[clients.ADMIN].secret
    monkeypatch.setattr(admin_login, "endpoints", LoginEndpoints())
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


# --- Whom the claims make ---


def test_one_whose_groups_grant_nothing_gets_a_page_and_no_session(browser: Browser) -> None:
    Group.objects.get(name="registry-readers").permissions.clear()
    browser.sign_in("alice")
    answer = browser.sign_in("rita")
    assert (answer.status_code, b"none of your groups" in answer.content) == (403, True)
    assert user("rita").is_staff is False
    assert browser.get("/admin/").status_code == 302


def test_groups_and_staff_are_set_anew_at_each_login(browser: Browser) -> None:
    browser.sign_in("rita")
    rita = user("rita")
    rita.groups.add(Group.objects.get(name="registry-admins"))
    User.objects.update(is_superuser=True)
    browser.sign_in("rita")
    rita = user("rita")
    assert (rita.is_staff, rita.is_superuser) == (True, False)
    assert [group.name for group in rita.groups.all()] == ["registry-readers"]
    Group.objects.all().delete()
    assert browser.sign_in("rita").status_code == 403
    assert user("rita").is_staff is False


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
        from django.db import connection

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


# --- An issuer that sends what it should not ---


class Liar(Issuer):
    """Its token endpoint answers with `answer`; `{nonce}` of the login under way is known to it."""

    def __init__(self) -> None:
        super().__init__()
        self.discovery |= {
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
        }
        self.posted: dict[str, str] = {}
        self.answer: Any = {}
        self.status = 200

    def post(self, handler: Handler) -> None:
        form = handler.rfile.read(int(handler.headers["Content-Length"])).decode()
        self.posted = dict(parse_qsl(form))
        handler.send(json.dumps(self.answer).encode(), self.status)

    def id_token(self, *, key: str = "rsa", **changed: Any) -> str:
        claims = self.claims(**{"aud": "the-admin", "groups": ["registry-admins"], **changed})
        return signed({"alg": "RS256", "kid": "rsa", "typ": "JWT"}, claims, private_key(key))


@pytest.fixture
def liar(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Liar]:
    monkeypatch.setattr(Handler, "do_POST", lambda handler: handler.server.post(handler), raising=False)
    monkeypatch.setattr(keys, "_providers", {})
    monkeypatch.setattr(admin_login, "endpoints", LoginEndpoints())
    with Liar() as server:
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        settings.OIDC_ISSUER = server.url
        settings.OIDC_RP_CLIENT_ID = "the-admin"
        settings.OIDC_RP_CLIENT_SECRET = "a secret"
        yield server
        keys.provider().stop()
        server.released.set()
        server.shutdown()


def come_back(browser: Browser, liar: Liar, **changed: Any) -> HttpResponse:
    asked = browser.begin()
    liar.answer = {"access_token": "opaque", "id_token": liar.id_token(**{"nonce": asked["nonce"], **changed})}
    return browser.get(CALLBACK, code="the code", state=asked["state"])


def test_a_good_id_token_signs_in(liar: Liar) -> None:
    browser = Browser()
    assert come_back(browser, liar).status_code == 302
    assert browser.get("/admin/").status_code == 200
    assert liar.posted["code"] == "the code"
    assert liar.posted["client_secret"] == "a secret"
    assert len(liar.posted["code_verifier"]) >= 43


@pytest.mark.parametrize(
    "changed",
    [
        {"exp": int(time.time()) - 60, "iat": int(time.time()) - 90},
        {"nonce": "another"},
        {"nonce": None},
        {"iss": "https://other.example"},
        {"aud": "another-client"},
        {"azp": "another-client"},
        {"sub": "a\nb"},
        {"key": "rsa-other"},
    ],
)
def test_a_bad_id_token_is_a_page_and_no_session(liar: Liar, changed: dict[str, Any]) -> None:
    browser = Browser()
    answer = come_back(browser, liar, **changed)
    assert (answer.status_code, b"not accepted" in answer.content) == (403, True)
    assert browser.get("/admin/").status_code == 302
    assert not User.objects.exists()


@pytest.mark.parametrize(
    ("answer", "status", "shown"),
    [
        ({}, 200, 403),
        ([], 200, 403),
        ({"id_token": 7}, 200, 403),
        ({"id_token": "nonsense"}, 200, 403),
        ({"error": "invalid_grant"}, 400, 503),
        ({}, 500, 503),
    ],
)
def test_a_token_endpoint_that_fails_is_a_page(liar: Liar, answer: Any, status: int, shown: int) -> None:
    browser = Browser()
    state = browser.begin()["state"]
    liar.answer, liar.status = answer, status
    assert browser.get(CALLBACK, code="c", state=state).status_code == shown


@pytest.mark.parametrize("metadata", [{}, [], None, {"issuer": "https://other.example"}])
def test_an_issuer_without_metadata_is_a_page(liar: Liar, metadata: Any) -> None:
    liar.discovery = metadata
    assert Browser().get("/oidc/authenticate/").status_code == 503


def test_an_issuer_that_hangs_holds_few_threads(liar: Liar) -> None:
    liar.answers["/realm/.well-known/openid-configuration"] = liar.hang
    asking = [threading.Thread(target=Browser().get, args=["/oidc/authenticate/"]) for _ in range(2)]
    for thread in asking:
        thread.start()
    until(lambda: len([path for path in liar.asked if "well-known" in path]) >= 2)
    begun_at = time.monotonic()
    assert Browser().get("/oidc/authenticate/").status_code == 503
    assert time.monotonic() - begun_at < 0.5
    liar.released.set()
    for thread in asking:
        thread.join()


def test_without_a_client_there_is_no_login(liar: Liar, settings: Settings) -> None:
    settings.OIDC_RP_CLIENT_ID = ""
    answer = Browser().get("/oidc/authenticate/")
    assert (answer.status_code, b"OIDC_RP_CLIENT_ID" in answer.content) == (503, True)


def test_the_secret_goes_where_the_issuer_wants_it(settings: Settings) -> None:
    settings.OIDC_RP_CLIENT_ID, settings.OIDC_RP_CLIENT_SECRET = "a b", "c:d"
    post = with_secret({"code": "c"}, {"token_endpoint_auth_methods_supported": ["client_secret_post"]})
    assert (post.fields["client_id"], post.fields["client_secret"], post.authorization) == ("a b", "c:d", None)
    basic = with_secret({"code": "c"}, {})
    assert (basic.fields, basic.authorization) == ({"code": "c"}, "Basic YStiOmMlM0Fk")
    settings.OIDC_RP_CLIENT_SECRET = ""
    assert with_secret({}, {}).fields == {"client_id": "a b"}


def test_metadata_is_asked_for_once_in_a_while(liar: Liar) -> None:
    endpoints = login_endpoints.LoginEndpoints()
    asked = len(liar.asked)
    assert endpoints.metadata() is endpoints.metadata()
    assert len(liar.asked) == asked + 1
