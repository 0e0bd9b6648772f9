"""The browser of an operator who signs in."""

import itertools
from urllib.parse import parse_qsl, urlsplit

import requests
from django.http import HttpResponse
from django.test import Client

numbers = itertools.cycle(range(256))
CALLBACK = "/oidc/callback/"


class Browser:
    """A browser at the registry that does not follow redirects."""

    def __init__(self) -> None:
        address = f"10.{next(numbers)}.0.1"  # each has its own limit of login attempts
        self.client = Client(SERVER_NAME="127.0.0.1", REMOTE_ADDR=address, raise_request_exception=False)

    def get(self, path: str, **query: str) -> HttpResponse:
        return self.client.get(path, query)  # type: ignore[return-value]

    def begin(self, next_path: str = "") -> dict[str, str]:
        """Begin a login; return the parameters of the redirect to the issuer."""
        response = self.get("/oidc/authenticate/", **({"next": next_path} if next_path else {}))
        assert response.status_code == 302, response.content
        self.target = response.headers["Location"]
        return dict(parse_qsl(urlsplit(self.target).query))

    def pick(self, subject: str, next_path: str = "") -> dict[str, str]:
        """Pick a person at the development issuer; return the parameters of the callback."""
        parameters = self.begin(next_path)
        url = self.target.partition("?")[0]
        back = requests.post(url, data={**parameters, "subject": subject}, allow_redirects=False, timeout=5)
        assert back.headers["Location"].startswith("http://127.0.0.1" + CALLBACK)
        return dict(parse_qsl(urlsplit(back.headers["Location"]).query))

    def sign_in(self, subject: str, next_path: str = "", **more: str) -> HttpResponse:
        return self.get(CALLBACK, **self.pick(subject, next_path), **more)
