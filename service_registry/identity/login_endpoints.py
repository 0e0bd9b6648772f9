"""The issuer's side of a login: its metadata, and the exchange of a code for tokens."""

import base64
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote_plus

from django.conf import settings

from service_registry.identity.fetching import FetchFailed, Form, discover, endpoint, fetch_json

METADATA_SECONDS = 300
AT_ONCE = 2


class LoginEndpoints:
    """Submission when somebody signs in, so that nothing but the issuer's name has to be set.

    Anybody may begin a login, so an issuer that hangs must not get hold of all threads of the process: AT_ONCE logins
    may wait for it, and the others are sent away.
    """

    def __init__(self) -> None:
        self._waiting = threading.BoundedSemaphore(AT_ONCE)
        self._known: tuple[str, dict[str, Any], float] | None = None

    def metadata(self) -> dict[str, Any]:
        """The issuer's metadata, at most METADATA_SECONDS old. Raises FetchFailed."""
        issuer, known = settings.OIDC_ISSUER, self._known
        if known and known[0] == issuer and time.monotonic() < known[2]:
            return known[1]
        with self._place():
            metadata = discover(issuer)
        self._known = issuer, metadata, time.monotonic() + METADATA_SECONDS
        return metadata

    def exchange(self, fields: Mapping[str, str]) -> dict[str, Any]:
        """The answer of the token endpoint (RFC 6749, 4.1.3). Raises FetchFailed."""
        metadata = self.metadata()
        with self._place():
            answer = fetch_json(endpoint(metadata, "token_endpoint"), form=with_secret(fields, metadata))
        return answer if isinstance(answer, dict) else {}

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._waiting.acquire(blocking=False):
            raise FetchFailed("other logins are waiting for it")
        try:
            yield
        finally:
            self._waiting.release()


def with_secret(fields: Mapping[str, str], metadata: Mapping[str, Any]) -> Form:
    """The client's name and secret where the issuer wants them: in the form, or in a header (RFC 6749, 2.3.1).

    Without a word on it the header is what every issuer takes (OpenID Connect Discovery, 3).
    """
    methods = metadata.get("token_endpoint_auth_methods_supported")
    client_id, secret = settings.OIDC_RP_CLIENT_ID, settings.OIDC_RP_CLIENT_SECRET
    named = {**fields, "client_id": client_id}
    if not secret:
        return Form(named)
    if isinstance(methods, list) and "client_secret_post" in methods and "client_secret_basic" not in methods:
        return Form({**named, "client_secret": secret})
    basic = base64.b64encode(f"{quote_plus(client_id)}:{quote_plus(secret)}".encode()).decode()
    return Form(dict(fields), f"Basic {basic}")


endpoints = LoginEndpoints()
