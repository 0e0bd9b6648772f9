"""Who may do what, through every front end: a denial for every cell of the table."""

from tests.front_ends.calls import OTHER_TEAM, ROLES, TEAM, groups
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
