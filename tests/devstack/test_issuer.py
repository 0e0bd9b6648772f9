"""The development issuer: its endpoints, and the requests that it refuses."""

import base64
import html
import http.client
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
import pytest

from registry_project.devstack import issuer
from registry_project.devstack.issuer import clients, codes
from registry_project.devstack.issuer.server import Server

AUDIENCE = "the-registry"
CALLBACK = "http://127.0.0.1:9/callback/"
VERIFIER = "v" * 43
# Python's URL parser finds a loopback host in each.
NO_ADDRESSES = (
    "http://127.0.0.1:9/\r\nX-Injected: yes",
    "http://127.0.0.1:9/\nX-Injected: yes",
    "http://127.0.0.1:9/\tx",
    "http://127.0.0.1:9/ x",
    " http://127.0.0.1:9/",
    "http://127.0.0.1:9/\0",
    "http://127.0.0.1:9/\x7f",
    "http://127.0.0.1:9/\u00e9",
    "http://127.0.0.1:9/#x",
    "http://evil.example\\@127.0.0.1:9/",
)


class Client:
    """A client of a running issuer."""

    def __init__(self, server: Server, data_dir: Path) -> None:
        self.server = server
        self.data_dir = data_dir
        self.url = server.issuer.url

    def secret(self, client_id: str) -> str:
        return clients.all_clients(self.data_dir)[client_id].secret

    def send(
        self, method: str, path: str, form: dict[str, str] | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=5)
        sent = {"Content-Type": "application/x-www-form-urlencoded"} | (headers or {})
        connection.request(method, issuer.PATH + path, urlencode(form) if form else None, sent)
        answer = connection.getresponse()
        result = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode()
        connection.close()
        return result

    def document(self, path: str, form: dict[str, str] | None = None, headers: dict[str, str] | None = None) -> Any:
        return json.loads(self.send("POST" if form else "GET", path, form, headers)[2])

    def token(self, client_id: str = clients.DEVELOPER, **form: str) -> Any:
        return self.document("/token", {"client_id": client_id, "client_secret": self.secret(client_id), **form})

    def claims(self, token: str, audience: str) -> dict[str, Any]:
        """Return the claims of a token, verified with the keys that the issuer publishes."""
        published = {key["kid"]: jwt.PyJWK(key) for key in self.document("/jwks")["keys"]}
        key = published[jwt.get_unverified_header(token)["kid"]]
        claims: dict[str, Any] = jwt.decode(token, key, algorithms=["RS256"], audience=audience, issuer=self.url)
        return claims

    def login(self, subject: str = "alice", **changed: str) -> dict[str, str]:
        """Pick a person on the login page, and return the parameters of the redirect."""
        _, headers, _ = self.send("POST", "/authorize", {**REQUEST, "subject": subject, **changed})
        return redirected(headers)

    def exchange(self, code: str, **changed: str) -> Any:
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, "code_verifier": VERIFIER}
        return self.token(clients.ADMIN, **{**form, **changed})


REQUEST = {
    "response_type": "code",
    "client_id": clients.ADMIN,
    "redirect_uri": CALLBACK,
    "scope": "openid profile",
    "state": "the state",
    "nonce": "the nonce",
    "code_challenge": codes.challenge_of(VERIFIER),
    "code_challenge_method": "S256",
}


def redirected(headers: dict[str, str]) -> dict[str, str]:
    assert headers["location"].startswith(CALLBACK)
    return {name: values[0] for name, values in parse_qs(urlsplit(headers["location"]).query).items()}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    data_dir = tmp_path_factory.mktemp("issuer")
    with Server(0, data_dir, AUDIENCE) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Client(server, data_dir)
        server.shutdown()


def test_discovery_document_lists_the_endpoints(client: Client) -> None:
    document = client.document("/.well-known/openid-configuration")
    assert document["issuer"] == client.url
    assert document["jwks_uri"] == f"{client.url}/jwks"
    assert document["code_challenge_methods_supported"] == ["S256"]


def test_client_credentials_return_a_token_for_the_subject_in_the_form(client: Client) -> None:
    answer = client.token(grant_type="client_credentials", subject="billing", groups="registry-services team-billing")
    claims = client.claims(answer["access_token"], AUDIENCE)
    assert jwt.get_unverified_header(answer["access_token"])["typ"] == "at+jwt"
    assert (claims["sub"], claims["client_id"]) == ("billing", clients.DEVELOPER)
    assert claims["groups"] == ["registry-services", "team-billing"]
    assert claims["exp"] - claims["iat"] == answer["expires_in"]


def test_client_in_the_authorization_header_gets_a_token(client: Client) -> None:
    basic = base64.b64encode(f"{clients.DEVELOPER}:{client.secret(clients.DEVELOPER)}".encode()).decode()
    answer = client.document("/token", {"grant_type": "client_credentials"}, {"Authorization": f"Basic {basic}"})
    assert client.claims(answer["access_token"], AUDIENCE)["sub"] == clients.DEVELOPER


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"client_secret": "wrong"}, "invalid_client"),
        ({"client_id": "nobody"}, "invalid_client"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": "authorization_code"}, "unauthorized_client"),
    ],
)
def test_token_request_that_is_wrong_gets_an_oauth_error(client: Client, form: dict[str, str], error: str) -> None:
    good = {"client_id": clients.DEVELOPER, "client_secret": client.secret(clients.DEVELOPER)}
    answer = client.document("/token", {**good, "grant_type": "client_credentials", **form})
    assert answer["error"] == error


def test_unknown_client_gets_a_challenge(client: Client) -> None:
    status, headers, _ = client.send("POST", "/token", {"grant_type": "client_credentials"})
    assert (status, headers["www-authenticate"].split()[0]) == (HTTPStatus.UNAUTHORIZED, "Basic")


def test_login_page_lists_the_people_and_escapes_the_request(client: Client) -> None:
    query = urlencode({**REQUEST, "state": '"><script>', "subject": "alice"})
    status, headers, page = client.send("GET", f"/authorize?{query}")
    assert status == HTTPStatus.OK
    assert "<script>" not in page
    assert "default-src 'none'" in headers["content-security-policy"]
    assert re.findall(r'name="subject" value="(\w+)"', page) == ["alice", "oscar", "rita", "sam"]
    hidden = {name: html.unescape(value) for name, value in re.findall(r'hidden" name="(\w+)" value="([^"]*)"', page)}
    assert hidden == {**REQUEST, "state": '"><script>'}


def test_login_returns_tokens_of_the_picked_person(client: Client) -> None:
    back = client.login("sam")
    assert (back["state"], back["iss"]) == ("the state", client.url)
    answer = client.exchange(back["code"])
    claims = client.claims(answer["id_token"], clients.ADMIN)
    assert (claims["sub"], claims["nonce"], claims["preferred_username"]) == ("sam", "the nonce", "sam")
    assert claims["groups"] == ["registry-services", "team-payments"]
    info = client.document("/userinfo", headers={"Authorization": f"Bearer {answer['access_token']}"})
    assert (info["sub"], info["email"]) == ("sam", "sam@example.test")


def test_code_used_twice_is_refused(client: Client) -> None:
    code = client.login()["code"]
    assert "access_token" in client.exchange(code)
    assert client.exchange(code)["error"] == "invalid_grant"


@pytest.mark.parametrize("changed", [{"code_verifier": "w" * 43}, {"redirect_uri": CALLBACK + "x"}, {"code": "no"}])
def test_code_of_another_login_is_refused(client: Client, changed: dict[str, str]) -> None:
    assert client.exchange(**{"code": client.login()["code"], **changed})["error"] == "invalid_grant"


def test_code_past_its_lifetime_is_refused() -> None:
    authorization = codes.Authorization(clients.ADMIN, CALLBACK, codes.challenge_of(VERIFIER), "the nonce", "alice")
    for seconds, redeemed in [(0, None), (60, authorization)]:
        store = codes.Codes(seconds)
        assert store.redeem(store.issue(authorization)) == redeemed


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge": ""}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"scope": "profile"}, "invalid_scope"),
        ({"prompt": "none"}, "login_required"),
        ({"subject": "mallory"}, "access_denied"),
    ],
)
def test_invalid_authorization_request_is_redirected_with_an_error(
    client: Client, changed: dict[str, str], error: str
) -> None:
    back = client.login(**changed)
    assert (back["error"], back["state"]) == (error, "the state")


@pytest.mark.parametrize(
    "changed",
    [
        {"client_id": "nobody"},
        {"client_id": clients.DEVELOPER},
        {"redirect_uri": "https://evil.example/"},
        {"redirect_uri": "http://127.0.0.1.evil.example/"},
        {"redirect_uri": "http://127.0.0.1:1@evil.example/"},
        {"redirect_uri": "http://[::1/"},
        *({"redirect_uri": uri} for uri in NO_ADDRESSES),
    ],
)
def test_authorization_request_for_a_foreign_redirect_uri_is_not_redirected(
    client: Client, changed: dict[str, str]
) -> None:
    status, headers, _ = client.send("POST", "/authorize", {**REQUEST, "subject": "alice", **changed})
    assert (status, headers.get("location")) == (HTTPStatus.BAD_REQUEST, None)


def test_end_session_redirects_to_loopback(client: Client) -> None:
    query = urlencode({"post_logout_redirect_uri": CALLBACK, "state": "a\r\nX-Injected: yes"})
    _, headers, _ = client.send("GET", f"/end_session?{query}")
    assert headers["location"] == f"{CALLBACK}?state=a%0D%0AX-Injected%3A+yes"
    assert client.send("GET", "/end_session")[0] == HTTPStatus.OK


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("uri", ["https://evil.example/", *NO_ADDRESSES])
def test_end_session_with_another_address_is_refused(client: Client, method: str, uri: str) -> None:
    form = {"post_logout_redirect_uri": uri}
    path, body = ("/end_session", form) if method == "POST" else (f"/end_session?{urlencode(form)}", None)
    status, headers, _ = client.send(method, path, body)
    assert (status, headers.get("location"), headers.get("x-injected")) == (HTTPStatus.BAD_REQUEST, None, None)


def test_authorization_request_with_line_breaks_in_its_state_adds_no_header(client: Client) -> None:
    form = {**REQUEST, "subject": "alice", "state": "a\r\nX-Injected: yes"}
    _, headers, _ = client.send("POST", "/authorize", form)
    assert "x-injected" not in headers
    assert parse_qs(urlsplit(headers["location"]).query)["state"] == ["a\r\nX-Injected: yes"]


@pytest.mark.parametrize("token", ["", "nonsense", "ID"])
def test_userinfo_without_an_access_token_is_unauthorized(client: Client, token: str) -> None:
    bearer = client.exchange(client.login()["code"])["id_token"] if token == "ID" else token
    status, headers, _ = client.send("GET", "/userinfo", headers={"Authorization": f"Bearer {bearer}"})
    assert (status, headers["www-authenticate"].split()[0]) == (HTTPStatus.UNAUTHORIZED, "Bearer")


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/nothing", {}, HTTPStatus.NOT_FOUND),
        ("GET", "/token", {}, HTTPStatus.NOT_FOUND),
        ("GET", "/jwks", {"Host": "evil.example"}, HTTPStatus.NOT_FOUND),
        ("POST", "/token", {"Content-Length": "999999"}, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        ("POST", "/token", {"Content-Type": "application/json", "Content-Length": "0"}, HTTPStatus.BAD_REQUEST),
        ("POST", "/token", {"Authorization": "Basic \u00e9"}, HTTPStatus.BAD_REQUEST),
        ("GET", "/authorize?a=1&a=2", {}, HTTPStatus.BAD_REQUEST),
        ("GET", "/authorize?" + "a&" * 200, {}, HTTPStatus.BAD_REQUEST),
    ],
)
def test_malformed_request_is_refused(
    client: Client, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    assert client.send(method, path, headers=headers)[0] == status


def test_key_and_secrets_survive_a_restart_and_are_private(client: Client) -> None:
    before = client.document("/jwks"), client.secret(clients.ADMIN)
    with Server(0, client.data_dir, AUDIENCE) as again:
        assert json.loads(again.issuer.jwks().body) == before[0]
        assert again.issuer.clients[clients.ADMIN].secret == before[1]
    for name in ("key.pem", "clients.json"):
        assert (client.data_dir / "issuer" / name).stat().st_mode & 0o777 == 0o600


def test_issuer_with_debug_off_does_not_start(tmp_path: Path) -> None:
    variables = {**os.environ, "DEBUG": "false", "REGISTRY_DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "registry_project.devstack.issuer", "--port=0"]
    answer = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=20, check=False)
    assert answer.returncode == 1
    assert "DEBUG=true only" in answer.stderr
    assert list(tmp_path.iterdir()) == []
