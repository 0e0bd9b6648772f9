"""Permissions of every call through every front end: an acceptance or a denial for each cell of the table."""

from dataclasses import replace

from tests.front_ends.calls import CALLS, OTHER_TEAM, ROLES, TEAM, groups
from tests.front_ends.cases import permission_matrix
from tests.front_ends.running import Run


def test_call_by_each_role_of_the_owning_team_follows_the_table(run: Run) -> None:
    run.run([*permission_matrix(ROLES, TEAM)])
    run.conclude()


def test_call_by_each_role_of_another_team_follows_the_table(run: Run) -> None:
    run.run([*permission_matrix(ROLES, OTHER_TEAM)])
    run.conclude()


def test_call_with_each_permission_missing_follows_the_table(run: Run) -> None:
    run.run([*permission_matrix(groups(), TEAM)])
    run.conclude()


def test_call_with_a_trailing_slash_follows_the_table(run: Run) -> None:
    calls = [replace(call, path=with_slash(call.path)) for call in CALLS if call.path.startswith("/registry/")]
    roles = {role: ROLES[role] for role in ("no-role", "registry-services", "registry-admins")}
    run.run([*permission_matrix(roles, TEAM, calls)])
    run.conclude()


def with_slash(path: str) -> str:
    path, question, query = path.partition("?")
    return f"{path}/{question}{query}"
