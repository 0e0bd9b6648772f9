"""Send the demo's HTTP requests: no proxies, no redirects, a timeout for each."""

import base64
import http.client
import json
from typing import Any
from urllib.parse import urlencode, urlsplit

TIMEOUT_SECONDS = 5


class NoAnswerError(Exception):
    """There was no answer, or one that is not HTTP."""


def call(method: str, url: str, token: str = "", body: Any = None) -> tuple[int, Any]:
    """Return the status and the JSON of the answer; None when it has no body.

    Raises NoAnswerError.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if body is None:
        return send(method, url, headers)
    return send(method, url, {**headers, "Content-Type": "application/json"}, json.dumps(body))


def fetch_token(issuer_url: str, secret: str, subject: str, groups: list[str]) -> str:
    """Return an access token by client_credentials (RFC 6749, 4.4).

    Raises NoAnswerError.
    """
    basic = base64.b64encode(f"developer:{secret}".encode()).decode()
    headers = {"Authorization": f"Basic {basic}", "Content-Type": "application/x-www-form-urlencoded"}
    form = {"grant_type": "client_credentials", "subject": subject, "groups": " ".join(groups)}
    status, answer = send("POST", f"{issuer_url}/token", headers, urlencode(form))
    if status != http.client.OK:
        raise NoAnswerError(f"the issuer refused a token: {answer}")
    return str(answer["access_token"])


def send(method: str, url: str, headers: dict[str, str], body: str | None = None) -> tuple[int, Any]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT_SECONDS)
    try:
        connection.request(method, f"{parts.path}?{parts.query}" if parts.query else parts.path, body, headers)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NoAnswerError(str(error)) from error
    finally:
        connection.close()
