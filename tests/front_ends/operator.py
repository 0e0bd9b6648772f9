"""A signed-in superuser of the admin at a front end."""

import subprocess
import sys
from dataclasses import dataclass, field
from urllib.parse import urlencode

from tests.front_ends.client import Answer, FrontEnd, Pairs, Request
from tests.front_ends.servers import ROOT, environment_of

ADD_SUPERUSER = """
from service_registry.access_models import User
User.objects.create_superuser("root", password="a long password")
"""
FORM = ("Content-Type", "application/x-www-form-urlencoded")


def add_superuser(database_url: str) -> None:
    run = [sys.executable, "manage.py", "shell", "--verbosity=0", "--command", ADD_SUPERUSER]
    subprocess.run(run, env=environment_of(database_url), cwd=ROOT, check=True, timeout=120)


@dataclass
class Operator:
    """A browser with cookies that follows no redirect."""

    front: FrontEnd
    cookies: dict[str, str] = field(default_factory=dict)

    def get(self, path: str) -> Answer:
        return self.send(Request("GET", path, headers=self.headers()))

    def post(self, path: str, *fields: tuple[str, str]) -> Answer:
        form = [*fields, ("csrfmiddlewaretoken", self.cookies.get("csrftoken", ""))]
        return self.send(Request("POST", path, urlencode(form).encode(), headers=self.headers(FORM)))

    def sign_in(self) -> None:
        self.get("/admin/login/")
        answer = self.post("/admin/login/?next=/admin/", ("username", "root"), ("password", "a long password"))
        assert answer.status == 302, str(answer)

    def headers(self, *others: tuple[str, str]) -> Pairs:
        return ("Cookie", "; ".join(f"{name}={value}" for name, value in self.cookies.items())), *others

    def send(self, request: Request) -> Answer:
        """Send a request, and keep the cookies of the answer."""
        answer = self.front.ask(request)
        for line in answer.cookies:
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value
        return answer
