"""The permission table's parts. `tests/front_ends` tries the table over HTTP."""

import pytest
from django.contrib.auth.models import Group

from service_registry import permissions
from service_registry.access_rules import read_rules
from service_registry.exceptions import PermissionMissing
from service_registry.permissions import ROLE_GROUPS

EITHER = permissions.action("either", {"b", "a"}, {"c"})


@pytest.mark.parametrize(
    ("granted", "missing"),
    [({"a", "b"}, None), ({"c"}, None), ({"a"}, "b"), ({"b"}, "a"), (set(), "a"), ({"other"}, "a")],
)
def test_action_names_the_first_missing_permission_of_its_first_alternative(
    granted: set[str], missing: str | None
) -> None:
    assert EITHER.missing(frozenset(granted)) == missing
    if missing:
        with pytest.raises(PermissionMissing) as caught:
            EITHER.require(frozenset(granted))
        assert caught.value.permission == missing
    else:
        EITHER.require(frozenset(granted))


def test_role_groups_that_exist_keep_their_permissions(db: None) -> None:
    Group.objects.get(name="registry-readers").permissions.clear()
    Group.objects.get(name="registry-services").delete()
    permissions.provide_role_groups("default")
    rules = read_rules()
    assert rules.granted_to(["registry-readers"]) == frozenset()
    assert rules.granted_to(["registry-services"]) == ROLE_GROUPS["registry-services"]
