"""Run cases through the front ends, and collect all failures."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, ClassVar

from tests.client import registration, token
from tests.front_ends.calls import INSTANCE, OTHER_INSTANCE, SERVICE, TEAM, Call
from tests.front_ends.client import NAMESPACE, Answer, FrontEnd, Request, comparable, faults_of, faults_of_success

ARRAY_LIMIT = 1000
FAILURES_SHOWN, CHARACTERS_SHOWN = 40, 600

# Returns what is wrong with an answer, or None.
Check = Callable[[Answer], str | None]


@dataclass(frozen=True)
class Case:
    """A request and the check of its answer.

    Attributes:
        compared: False when the answers of the front ends may differ.
        of_empty: True when the service must have no instances.
    """

    name: str
    request: Request
    check: Check
    compared: bool = True
    of_empty: bool = False


def request_of(call: Call, bearer: str | None, **changed: Any) -> Request:
    """Return the request of a call, with some attributes replaced."""
    arguments: dict[str, Any] = {"path": call.path, "body": call.body, "headers": call.headers}
    return Request(call.method, bearer=bearer, **arguments | changed)


def for_service(request: Request, name: str) -> Request:
    """Return the request with the name of the case's service in it."""
    body = request.body
    if isinstance(body, bytes):
        body = body.replace(SERVICE.encode(), name.encode())
    elif body is not None:
        body = json.loads(json.dumps(body).replace(SERVICE, name))
    return replace(request, path=request.path.replace(SERVICE, name), body=body)


def expect(status: int, code: str | None = None, **members: Any) -> Check:
    """Return a check of the status, the code and members of the problem.

    `fields` are the top-level fields that the problem must name.
    """

    def check(answer: Answer) -> str | None:
        wanted: list[Any] = [status]
        found: list[Any] = [answer.status]
        if answer.to_head:
            return None if found == wanted else f"expected {wanted}, and the answer is {answer}"
        if code:
            wanted.append(code)
            found.append(answer.code)
        if "fields" in members:
            wanted.append(members["fields"])
            found.append(answer.error_fields)
        for name in members.keys() - {"fields"}:
            wanted.append((name, members[name]))
            found.append((name, answer.json.get(name) if answer.is_problem else None))
        return None if found == wanted else f"expected {wanted}, and the answer is {answer}"

    return check


def expect_items(*items: tuple[int, str | None]) -> Check:
    """Return a check of status and code of each item in the answer to an array."""

    def check(answer: Answer) -> str | None:
        good = answer.status == 200 and answer.items == [*items]
        return None if good else f"expected 200 with {[*items]}, and the answer is {answer}"

    return check


def succeeds(call: Call) -> Check:
    """Return a check that the call succeeds."""
    return expect_items((call.item, None)) if call.item else expect(call.succeeds)


def instances_of(request: Request) -> list[str]:
    """Return the ids of the instances that must exist before the request."""
    text = f"{request.path} {request.body}"
    return [INSTANCE, OTHER_INSTANCE] if OTHER_INSTANCE in text else [INSTANCE] if SERVICE in text else []


@dataclass(frozen=True)
class Failure:
    """A wrong answer of a front end."""

    front: str
    case: str
    fault: str

    def __str__(self) -> str:
        return f"{self.front}: {self.case}: {self.fault}"


@dataclass
class Run:
    """A run of cases through front ends, with its failures."""

    fronts: Sequence[FrontEnd]
    failures: list[Failure] = field(default_factory=list)
    numbers: ClassVar[Iterator[int]] = count()

    def run(
        self,
        cases: Sequence[Case],
        *,
        refused: bool = False,
        during: AbstractContextManager[object] = nullcontext(),  # noqa: B008 (it has no state)
    ) -> None:
        """Create the service and the instances of each case, and run it through every front end.

        Args:
            refused: True when all cases are refused, so that no change may be appended to the log.
            during: a context to run them in.
        """
        named = [(f"case-{next(self.numbers):05}", case) for case in cases]
        self.prepare(named)
        index = self.changes()["index"] if refused else None
        with during:
            for name, case in named:
                self.run_one(case, name)
        if index:
            namespaces = {"default", *(front.namespace for front in self.fronts)}
            self.failures += [
                Failure("any", f"{change['service_name']} {change['instance_id']}", f"{change['kind']} was appended")
                for change in self.changes(f"?index={index}&wait=0s")["changes"]
                if change["namespace"] in namespaces
            ]

    def changes(self, query: str = "") -> Any:
        """Return changes and the newest index from the last front end, WSGI, which reads the database."""
        bearer = token("registry-readers", subject="reader")
        return self.fronts[-1].ask(Request("GET", f"/registry/watch{query}", None, bearer)).json

    def prepare(self, named: Sequence[tuple[str, Case]]) -> None:
        team = token("registry-services", TEAM, subject="preparing")
        items = [
            (case, {"namespace": NAMESPACE, "service_name": name, "instance_id": instance.replace(SERVICE, name)})
            for name, case in named
            for instance in instances_of(case.request)
        ]
        registered = [registration(**key) for _case, key in items]
        left = [key for case, key in items if case.of_empty]
        for front in self.fronts:
            for operation, array, good in (("register", registered, 201), ("deregister", left, 204)):
                for start in range(0, len(array), ARRAY_LIMIT):
                    part = array[start : start + ARRAY_LIMIT]
                    answer = front.ask(Request("POST", f"/registry/{operation}", part, team))
                    assert answer.items == [(good, None)] * len(part), str(answer)

    def run_one(self, case: Case, service_name: str) -> None:
        request = for_service(case.request, service_name)
        answers = [front.ask(request) for front in self.fronts]
        for front, answer in zip(self.fronts, answers, strict=True):
            found = [case.check(answer), *faults_of(answer), *faults_of_success(request.method, request.path, answer)]
            self.failures += [Failure(front.name, case.name, fault) for fault in found if fault]
        if case.compared:
            compared = [comparable(front, answer) for front, answer in zip(self.fronts, answers, strict=True)]
            self.failures += [
                Failure(f"{front.name} differs", case.name, difference(compared[0], other))
                for front, other in zip(self.fronts[1:], compared[1:], strict=True)
                if other != compared[0]
            ]

    def conclude(self) -> None:
        """Fail with all failures."""
        shown = [str(failure)[:CHARACTERS_SHOWN] for failure in self.failures[:FAILURES_SHOWN]]
        shown.append(f"{len(self.failures)} failures")
        assert not self.failures, "\n".join(shown)


def difference(one: tuple[int, dict[str, str], Any], other: tuple[int, dict[str, str], Any]) -> str:
    parts = [
        f"{name}: {mine!r} / {theirs!r}"
        for name, mine, theirs in zip(("status", "headers", "body"), one, other, strict=True)
        if mine != theirs
    ]
    return "; ".join(parts)
