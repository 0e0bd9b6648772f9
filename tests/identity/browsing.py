"""A browser that an operator signs in with."""

from urllib.parse import parse_qsl, urlsplit

import requests
from django.http import HttpResponse
from django.test import Client

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
