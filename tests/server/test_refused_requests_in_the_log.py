"""The log of a web process while many requests are refused."""

import json
from pathlib import Path
from typing import Any

from tests.client import registration
from tests.server.registry import Registry
from tests.waiting import wait_for

REQUESTS = 300


def read_lines(directory: Path) -> list[dict[str, Any]]:
    lines = (directory / "output").read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def test_refused_requests_are_summarized_and_accepted_writes_are_all_logged(tmp_path: Path) -> None:
    with Registry(tmp_path) as registry:
        stranger, team = registry.caller_with_token("a.b.c"), registry.caller("registry-services", "team")
        for number in range(REQUESTS):
            assert stranger.call("POST", "/registry/register", registration("web")).status == 401
            assert stranger.call("GET", "/registry/changes").status == 401
            if number % 6 == 0:
                assert team.call("POST", "/registry/register", registration("web", f"a-{number}")).status == 201

        def count(event: str) -> tuple[int, int]:
            """Return the lines about refusals of an event, and the requests that they and the summaries count."""
            found = [line for line in read_lines(tmp_path) if line["event"] == event and "token_invalid" in str(line)]
            single = sum("status" in line for line in found)
            return single, single + sum(line["outcomes"].get("suppressed", 0) for line in found)

        for event in ("register", "changes"):
            wait_for(lambda event=event: count(event)[1] == REQUESTS)  # type: ignore[misc]
            assert 10 <= count(event)[0] < REQUESTS
        written = [line["instance_id"] for line in read_lines(tmp_path) if line.get("code") is None and "actor" in line]
        assert written == [f"a-{number}" for number in range(0, REQUESTS, 6)]
        assert (
            registry.read_metric('registry_operations_total{operation="register",outcome="token_invalid"}') == REQUESTS
        )
