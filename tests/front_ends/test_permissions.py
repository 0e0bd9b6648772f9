"""Who may do what, through every front end: a denial for every cell of the table."""

from collections.abc import Iterator

import pytest

from tests.client import token
from tests.front_ends.calls import CALLS, OTHER_TEAM, ROLES, TEAM, Call, groups
from tests.front_ends.cases import Case, Check, Run, expect, expect_items, request_of

pytestmark = pytest.mark.wire


def expected(call: Call, granted: frozenset[str], *, owns: bool) -> Check:
    """What the table says of a call."""
    missing = call.missing(granted)
    if missing:
        return expect(403, "permission_denied", permission=missing)
    refused = call.needs_owner(granted) and not owns
    if call.item is not None:
        return expect_items((403, "not_owner") if refused else (call.item, None))
    return expect(403, "not_owner") if refused else expect(call.succeeds)


def matrix(granted_to: dict[str, frozenset[str]], team: str, calls: tuple[Call, ...] = CALLS) -> Iterator[Case]:
    """Each call by a caller of each group who also is of `team`."""
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


def test_a_role_of_the_owning_team_may_do_what_the_table_says(run: Run) -> None:
    run.run([*matrix(ROLES, TEAM)])
    run.conclude()


def test_a_role_of_another_team_may_do_what_the_table_says(run: Run) -> None:
    run.run([*matrix(ROLES, OTHER_TEAM)])
    run.conclude()


def test_each_permission_is_needed_and_no_other(run: Run) -> None:
    run.run([*matrix(groups(), TEAM)])
    run.conclude()
