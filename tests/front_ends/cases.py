"""Generate cases from the tables of calls and inputs."""

from collections.abc import Iterator, Sequence
from typing import Any

from tests.client import token
from tests.front_ends import inputs
from tests.front_ends.calls import CALLS, TEAM, Call
from tests.front_ends.client import Answer, Request
from tests.front_ends.json_defects import JSON_DEFECTS
from tests.front_ends.running import Case, Check, expect, expect_items, request_of

WITH_BODY = [call for call in CALLS if call.body is not None]
OBJECTS = [call for call in WITH_BODY if not call.item]
ARRAYS = [call for call in WITH_BODY if call.item]


def expected(call: Call, granted: frozenset[str], *, owns: bool) -> Check:
    """Return the check of a call by a caller with these permissions."""
    missing = call.missing(granted)
    if missing:
        return expect(403, "permission_denied", permission=missing)
    refused = call.needs_owner(granted) and not owns
    if call.item:
        return expect_items((403, "not_owner") if refused else (call.item, None))
    return expect(403, "not_owner") if refused else expect(call.succeeds)


def permission_matrix(
    granted_to: dict[str, frozenset[str]], team: str, calls: Sequence[Call] = CALLS
) -> Iterator[Case]:
    """Yield each call by a caller of each group, who is also a member of `team`."""
    for group, granted in granted_to.items():
        bearer = token(group, team, subject=group)
        for call in calls:
            check = expected(call, granted, owns=team == TEAM)
            yield Case(
                f"{call.name} by {group} of {team}",
                request_of(call, bearer),
                check,
                compared=call.compared or call.missing(granted) is not None,
                of_empty=call.of_empty,
            )


def is_operation(call: Call) -> bool:
    """Return whether the call accepts objects and arrays."""
    return call.path in {"/registry/register", "/registry/heartbeat", "/registry/deregister"}


def with_field(body: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    return {**body, field: value}


def bad_fields(bearer: str) -> list[Case]:
    """Return a case for each invalid field of an object."""
    return [
        Case(
            f"{call.name} with {field}={value!r}",
            request_of(call, bearer, body=with_field(call.body, field, value)),
            expect(400, "invalid", fields=[field]),
        )
        for call in OBJECTS
        for field, value in inputs.FIELDS_OF[call.name]
    ]


def refused_items(fields: inputs.Fields, item: int) -> Check:
    """Return a check that each item is refused by its own field, and that the valid last item is not."""
    refused = expect_items(*[(400, "invalid")] * len(fields), (item, None))

    def check(answer: Answer) -> str | None:
        fault = refused(answer)
        if fault:
            return fault
        named = [
            sorted({path.partition(".")[0] for path in result["error"]["errors"]})
            for result in answer.json["results"][:-1]
        ]
        wanted = [[field] for field, _value in fields]
        wrong = [(want, found) for want, found in zip(wanted, named, strict=True) if want != found]
        return f"expected and named: {wrong}" if wrong else None

    return check


def bad_items(bearer: str) -> list[Case]:
    """Return arrays in which each item but the last has an invalid field."""
    cases = []
    for call in ARRAYS:
        (good,) = call.body
        fields = inputs.FIELDS_OF[call.path.rpartition("/")[2]]
        array = [*(with_field(good, field, value) for field, value in fields), good]
        cases.append(Case(call.name, request_of(call, bearer, body=array), refused_items(fields, call.item)))
    return cases


def bad_json(bearer: str) -> list[Case]:
    """Return a case for each defect of a JSON body."""
    return [
        Case(
            f"{call.name}: {name}",
            request_of(call, bearer, body=changed(inputs.as_json(call.body))),
            expect(400, "invalid"),
        )
        for call in WITH_BODY
        for name, changed in JSON_DEFECTS.items()
    ]


def bad_queries(bearer: str) -> list[Case]:
    """Return a case for each invalid parameter of a query."""
    bodies = {(call.method, call.path.partition("?")[0]): call.body for call in OBJECTS}
    return [
        Case(
            f"{method} {path}?{query[:80]}",
            Request(method, f"{path}?{query}", bodies.get((method, path)), bearer),
            expect(400, "invalid", fields=[field]),
        )
        for (method, path), queries in inputs.QUERIES.items()
        for field, query in queries
    ]


def superfluous_queries(bearer: str) -> list[Case]:
    """Return cases with a query for the operations, which take no parameters."""
    return [
        Case(
            f"{call.name}?{query}",
            request_of(call, bearer, path=f"{call.path}?{query}"),
            expect(400, "invalid", fields=[field]),
        )
        for call in WITH_BODY
        if is_operation(call)
        for field, query in inputs.NO_PARAMETERS
    ]
