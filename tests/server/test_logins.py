"""Logins to the admin over real sockets: what they leave behind."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests

from registry_project.devstack.issuer.clients import ADMIN, all_clients
from service_registry.identity.pending_logins import COOKIE_PREFIX, MAX_PENDING
from tests.server.registry import Registry

ADD_SUPERUSER = """
from service_registry.access_models import User
User.objects.create_superuser("root", password="a long password")
"""

numbers = itertools.count()


class Visitor:
    """A browser with cookies that follows no redirect."""

    def __init__(self, registry: Registry, network: str = "") -> None:
        self.address = f"http://127.0.0.1:{registry.ports[0]}"
        self.session = requests.Session()
        # uvicorn trusts a proxy on loopback to name the client.
        self.session.headers["X-Forwarded-For"] = network or f"10.{next(numbers)}.0.1"

    def get(self, path: str, **query: str) -> requests.Response:
        url = path if path.startswith("http") else self.address + path
        return self.session.get(url, params=query, allow_redirects=False, timeout=60)

    def begin(self) -> dict[str, str]:
        """Begin a login at the provider; return the parameters of the redirect."""
        return dict(parse_qsl(urlsplit(self.get("/oidc/authenticate/").headers["Location"]).query))

    def pick(self, subject: str) -> str:
        """Begin a login, and pick a person at the development issuer; return the address of the callback."""
        redirected = self.get("/oidc/authenticate/").headers["Location"]
        form = {**dict(parse_qsl(urlsplit(redirected).query)), "subject": subject}
        url = redirected.partition("?")[0]
        return requests.post(url, data=form, allow_redirects=False, timeout=60).headers["Location"]

    def enter_password(self, username: str, password: str) -> requests.Response:
        """Send the login form. Django compares its token with that of the cookie."""
        self.get("/admin/login/")
        form = {"username": username, "password": password, "csrfmiddlewaretoken": self.session.cookies["csrftoken"]}
        url = f"{self.address}/admin/login/?next=/admin/"
        return self.session.post(url, data=form, allow_redirects=False, timeout=60)

    def pending(self) -> set[str]:
        """Return the states of the logins that this browser has begun and not finished."""
        names = [str(cookie.name) for cookie in self.session.cookies]
        return {name.removeprefix(COOKIE_PREFIX) for name in names if name.startswith(COOKIE_PREFIX)}

    def is_signed_in(self) -> bool:
        return self.get("/admin/").status_code == 200


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    secret = all_clients(Path(os.environ["REGISTRY_DATA_DIR"]))[ADMIN].secret
    with Registry(tmp_path_factory.mktemp("logins"), variables={"OIDC_RP_CLIENT_SECRET": secret}) as running:
        assert running.start("manage.py", "shell", "--command", ADD_SUPERUSER).wait(60) == 0
        yield running


def count_sessions(registry: Registry) -> int:
    return int(registry.sql("SELECT count(*) FROM django_session")[0][0])


def test_logins_that_are_begun_and_not_finished_leave_no_row(registry: Registry) -> None:
    before = count_sessions(registry)
    for _ in range(200):
        assert Visitor(registry).begin()["state"]
    visitor = Visitor(registry)
    assert visitor.get("/oidc/callback/", state=visitor.begin()["state"], code="wrong").status_code == 503
    assert Visitor(registry).enter_password("root", "wrong").status_code == 200
    assert count_sessions(registry) == before


def test_login_is_finished_once_and_by_its_browser_alone(registry: Registry) -> None:
    visitor, other = Visitor(registry), Visitor(registry)
    callback = visitor.pick("alice")
    assert other.get(callback).status_code == 400
    assert visitor.get(callback).status_code == 302
    assert (visitor.is_signed_in(), visitor.pending()) == (True, set())
    assert visitor.get(callback).status_code == 400
    assert (visitor.is_signed_in(), other.is_signed_in()) == (True, False)


def test_browser_keeps_its_newest_pending_logins(registry: Registry) -> None:
    visitor = Visitor(registry)
    states = [visitor.begin()["state"] for _ in range(MAX_PENDING + 2)]
    assert visitor.pending() == set(states[-MAX_PENDING:])


@pytest.mark.parametrize("way", ["provider", "password"])
def test_session_is_not_renewed_by_logins_that_are_not_finished(registry: Registry, way: str) -> None:
    visitor = Visitor(registry)
    if way == "provider":
        visitor.get(visitor.pick("alice"))
    else:
        visitor.enter_password("root", "a long password")
    row = f"WHERE session_key = '{visitor.session.cookies['sessionid']}'"
    read_end = f"SELECT expire_date, expire_date - clock_timestamp() <= '10 hours' FROM django_session {row}"
    ((ends_at, is_soon),) = registry.sql(read_end)
    state = visitor.begin()["state"]
    assert visitor.get("/oidc/callback/", state=state, error="access_denied").status_code == 403
    assert visitor.enter_password("root", "wrong").status_code == 200
    assert (registry.sql(read_end)[0][0], is_soon, visitor.is_signed_in()) == (ends_at, True, True)
    registry.execute(f"UPDATE django_session SET expire_date = clock_timestamp() {row}")
    visitor.begin()
    assert not visitor.is_signed_in()


def test_password_guesses_are_limited_for_the_account_at_an_address(registry: Registry) -> None:
    stranger = Visitor(registry)
    guesses = [stranger.enter_password("root", f"wrong {number}") for number in range(7)]
    assert [guess.status_code for guess in guesses] == [200] * 5 + [429] * 2
    assert 0 < int(guesses[-1].headers["Retry-After"]) <= 60
    assert "too many sign-in attempts" in guesses[-1].text
    assert stranger.enter_password("root", "a long password").status_code == 429
    assert stranger.enter_password("another", "wrong").status_code == 200
    owner = Visitor(registry)
    assert owner.enter_password("root", "a long password").status_code == 302


def test_right_password_ends_the_limit_of_an_account(registry: Registry) -> None:
    owner = Visitor(registry)
    for _ in range(3):
        assert [owner.enter_password("root", "wrong").status_code for _ in range(3)] == [200] * 3
        assert owner.enter_password("root", "a long password").status_code == 302


@pytest.mark.parametrize("network", ["192.0.2.{}", "2001:db8::{}"])
def test_logins_at_the_provider_are_limited_by_address(registry: Registry, network: str) -> None:
    same = network.format(1)
    first = [Visitor(registry, same).get("/oidc/authenticate/").status_code for _ in range(30)]
    statuses = [Visitor(registry, same).get("/oidc/authenticate/").status_code for _ in range(30)]
    assert (first, 429 in statuses) == ([302] * 30, True)
    limited = Visitor(registry, network.format(2)).get("/oidc/authenticate/").status_code
    assert limited == (429 if ":" in network else 302)
    assert Visitor(registry).get("/oidc/authenticate/").status_code == 302


def test_address_that_the_client_claims_is_ignored_without_a_trusted_proxy(tmp_path: Path) -> None:
    with Registry(tmp_path, variables={"FORWARDED_ALLOW_IPS": "192.0.2.1"}) as direct:
        statuses = [Visitor(direct).get("/oidc/authenticate/").status_code for _ in range(60)]
        assert 429 in statuses
