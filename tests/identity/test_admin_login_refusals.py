"""Signing in at an issuer that fails, or sends what it should not."""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

import pytest
from django.http import HttpResponse
from pytest_django import Settings

from service_registry.identity import keys
from service_registry.identity.login_endpoints import LoginEndpoints, with_secret
from service_registry.models import User
from tests.identity.browsing import CALLBACK, Browser
from tests.identity.issuing import Handler, In, Issuer, private_key, signed, until

pytestmark = pytest.mark.django_db(transaction=True)


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

    def posted_to(self, handler: Handler) -> None:
        form = handler.rfile.read(int(handler.headers["Content-Length"])).decode()
        self.posted = dict(parse_qsl(form))
        handler.send(json.dumps(self.answer).encode(), self.status)

    def id_token(self, *, key: str = "rsa", **changed: Any) -> str:
        claims = self.claims(**{"aud": "the-admin", "groups": ["registry-admins"], **changed})
        return signed({"alg": "RS256", "kid": "rsa", "typ": "JWT"}, claims, private_key(key))


@pytest.fixture
def liar(settings: Settings) -> Iterator[Liar]:
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
        {"exp": In(-60), "iat": In(-90)},
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
    endpoints = LoginEndpoints()
    asked = len(liar.asked)
    assert endpoints.metadata() is endpoints.metadata()
    assert len(liar.asked) == asked + 1
