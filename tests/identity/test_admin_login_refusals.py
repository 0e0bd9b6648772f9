"""Login to the admin with an issuer that fails or sends bad tokens."""

import json
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

import pytest
from django.http import HttpResponse
from pytest_django import Settings

from service_registry.access_models import User
from service_registry.identity import key_provider
from service_registry.identity.login_endpoints import LoginEndpoints, authenticate_client
from tests.identity.browser import CALLBACK, Browser
from tests.identity.issuer_server import Handler, In, Issuer, private_key, signed
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


class BadIssuer(Issuer):
    """An issuer whose token endpoint returns `answer` with `status`."""

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

    def handle_post(self, handler: Handler) -> None:
        form = handler.rfile.read(int(handler.headers["Content-Length"])).decode()
        self.posted = dict(parse_qsl(form))
        handler.send(json.dumps(self.answer).encode(), self.status)

    def id_token(self, *, key: str = "rsa", **changed: Any) -> str:
        claims = self.claims(**{"aud": "the-admin", "groups": ["registry-admins"], **changed})
        return signed({"alg": "RS256", "kid": "rsa", "typ": "JWT"}, claims, private_key(key))


@pytest.fixture
def bad_issuer(settings: Settings) -> Iterator[BadIssuer]:
    with BadIssuer() as server:
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        settings.OIDC_ISSUER = server.url
        settings.OIDC_RP_CLIENT_ID = "the-admin"
        settings.OIDC_RP_CLIENT_SECRET = "a secret"
        yield server
        key_provider.get_key_provider().stop()
        server.released.set()
        server.shutdown()


def finish_login(browser: Browser, bad_issuer: BadIssuer, **changed: Any) -> HttpResponse:
    sent = browser.begin()
    bad_issuer.answer = {
        "access_token": "opaque",
        "id_token": bad_issuer.id_token(**{"nonce": sent["nonce"], **changed}),
    }
    return browser.get(CALLBACK, code="the code", state=sent["state"])


def test_login_with_a_valid_id_token_signs_in(bad_issuer: BadIssuer) -> None:
    browser = Browser()
    assert finish_login(browser, bad_issuer).status_code == 302
    assert browser.get("/admin/").status_code == 200
    assert bad_issuer.posted["code"] == "the code"
    assert bad_issuer.posted["client_secret"] == "a secret"
    assert len(bad_issuer.posted["code_verifier"]) >= 43


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
def test_login_with_a_bad_id_token_gets_a_page_and_no_session(bad_issuer: BadIssuer, changed: dict[str, Any]) -> None:
    browser = Browser()
    answer = finish_login(browser, bad_issuer, **changed)
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
def test_login_with_a_failing_token_endpoint_gets_a_page(
    bad_issuer: BadIssuer, answer: Any, status: int, shown: int
) -> None:
    browser = Browser()
    state = browser.begin()["state"]
    bad_issuer.answer, bad_issuer.status = answer, status
    assert browser.get(CALLBACK, code="c", state=state).status_code == shown


@pytest.mark.parametrize("metadata", [{}, [], None, {"issuer": "https://other.example"}])
def test_login_without_metadata_of_the_issuer_gets_a_page(bad_issuer: BadIssuer, metadata: Any) -> None:
    bad_issuer.discovery = metadata
    assert Browser().get("/oidc/authenticate/").status_code == 503


def test_login_while_the_issuer_hangs_blocks_two_threads_at_most(bad_issuer: BadIssuer) -> None:
    bad_issuer.answers["/realm/.well-known/openid-configuration"] = bad_issuer.hang
    waiting = [threading.Thread(target=Browser().get, args=["/oidc/authenticate/"]) for _ in range(2)]
    for thread in waiting:
        thread.start()
    wait_for(lambda: len([path for path in bad_issuer.requested if "well-known" in path]) >= 2)
    assert Browser().get("/oidc/authenticate/").status_code == 503
    assert all(thread.is_alive() for thread in waiting)
    bad_issuer.released.set()
    for thread in waiting:
        thread.join()


def test_login_without_a_configured_client_gets_a_page(bad_issuer: BadIssuer, settings: Settings) -> None:
    settings.OIDC_RP_CLIENT_ID = ""
    answer = Browser().get("/oidc/authenticate/")
    assert (answer.status_code, b"OIDC_RP_CLIENT_ID" in answer.content) == (503, True)


def test_client_secret_is_sent_by_the_method_of_the_issuer(settings: Settings) -> None:
    settings.OIDC_RP_CLIENT_ID, settings.OIDC_RP_CLIENT_SECRET = "a b", "c:d"
    post = authenticate_client({"code": "c"}, {"token_endpoint_auth_methods_supported": ["client_secret_post"]})
    assert (post.fields["client_id"], post.fields["client_secret"], post.authorization) == ("a b", "c:d", None)
    basic = authenticate_client({"code": "c"}, {})
    assert (basic.fields, basic.authorization) == ({"code": "c"}, "Basic YStiOmMlM0Fk")
    settings.OIDC_RP_CLIENT_SECRET = ""
    assert authenticate_client({}, {}).fields == {"client_id": "a b"}


def test_metadata_is_fetched_once_and_cached(bad_issuer: BadIssuer) -> None:
    endpoints = LoginEndpoints()
    requests = len(bad_issuer.requested)
    assert endpoints.metadata() is endpoints.metadata()
    assert len(bad_issuer.requested) == requests + 1
