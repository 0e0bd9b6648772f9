"""Who may do what, through every front end: a denial for every cell of the table."""

from dataclasses import replace

from tests.front_ends.calls import CALLS, OTHER_TEAM, ROLES, TEAM, groups
from tests.front_ends.cases import permission_matrix
from tests.front_ends.running import Run


def test_a_role_of_the_owning_team_may_do_what_the_table_says(run: Run) -> None:
    run.run([*permission_matrix(ROLES, TEAM)])
    run.conclude()


def test_a_role_of_another_team_may_do_what_the_table_says(run: Run) -> None:
    run.run([*permission_matrix(ROLES, OTHER_TEAM)])
    run.conclude()


def test_each_permission_is_needed_and_no_other(run: Run) -> None:
    run.run([*permission_matrix(groups(), TEAM)])
    run.conclude()


def test_a_slash_at_the_end_of_the_path_makes_no_difference(run: Run) -> None:
    calls = [replace(call, path=with_slash(call.path)) for call in CALLS if call.path.startswith("/registry/")]
    roles = {role: ROLES[role] for role in ("no-role", "registry-services", "registry-admins")}
    run.run([*permission_matrix(roles, TEAM, calls)])
    run.conclude()


def with_slash(path: str) -> str:
    path, question, query = path.partition("?")
    return f"{path}/{question}{query}"
