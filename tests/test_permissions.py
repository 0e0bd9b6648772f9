"""The permission table's parts, and the cache of what groups have. `tests/front_ends` tries the table over HTTP."""

import pytest
from django.contrib.auth.models import Group, Permission
from django.db import ProgrammingError, connection

from service_registry import permissions
from service_registry.caller import Caller
from service_registry.exceptions import NotMigrated, PermissionMissing
from service_registry.permissions import CACHE_SECONDS, ROLE_GROUPS, PermissionCache

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


def test_cache_of_a_migrated_database_has_the_role_groups(db: None) -> None:
    cache = PermissionCache()
    for group, granted in ROLE_GROUPS.items():
        assert cache.granted_to([group]) == granted
        assert cache.is_role(group)


def test_cache_adds_up_the_permissions_of_several_groups(db: None) -> None:
    granted = PermissionCache().granted_to(["registry-readers", "registry-services", "no-such-group"])
    assert granted == ROLE_GROUPS["registry-readers"] | ROLE_GROUPS["registry-services"]
    assert PermissionCache().granted_to(["no-such-group"]) == frozenset()


def test_cache_takes_a_group_with_permissions_of_another_app_for_a_role(db: None) -> None:
    staff = Group.objects.create(name="staff")
    Group.objects.create(name="team")
    staff.permissions.add(Permission.objects.get(codename="add_group"))
    cache = PermissionCache()
    assert (cache.is_role("staff"), cache.is_role("team")) == (True, False)
    assert cache.granted_to(["staff"]) == frozenset()
    assert Caller("x", frozenset({"staff", "team"}), frozenset()).claimable_groups() == ["team"]


def test_cache_reads_again_only_when_it_is_too_old(db: None) -> None:
    cache = PermissionCache()
    cache.granted_to([])
    Group.objects.get(name="registry-readers").permissions.clear()
    assert cache.granted_to(["registry-readers"]) == ROLE_GROUPS["registry-readers"]
    cache.refresh_ahead()  # not yet at half its age
    assert cache.is_role("registry-readers")
    cache._read_at -= CACHE_SECONDS / 2 + 1
    assert cache.is_fresh
    cache.refresh_ahead()
    assert not cache.is_role("registry-readers")


def test_cache_during_an_outage_keeps_its_last_snapshot(transactional_db: None) -> None:
    cache, without_snapshot = PermissionCache(), PermissionCache()
    cache.granted_to([])
    cache.invalidate()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE auth_group RENAME TO auth_group_away")
    try:
        assert cache.granted_to(["registry-readers"]) == ROLE_GROUPS["registry-readers"]
        assert cache.is_fresh
        with pytest.raises(ProgrammingError):
            without_snapshot.granted_to([])
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE auth_group_away RENAME TO auth_group")


def test_cache_of_a_database_without_roles_is_not_migrated(db: None) -> None:
    Group.objects.all().delete()
    with pytest.raises(NotMigrated):
        PermissionCache().granted_to([])


def test_role_groups_that_exist_keep_their_permissions(db: None) -> None:
    Group.objects.get(name="registry-readers").permissions.clear()
    Group.objects.get(name="registry-services").delete()
    permissions.provide_role_groups("default")
    cache = PermissionCache()
    assert cache.granted_to(["registry-readers"]) == frozenset()
    assert cache.granted_to(["registry-services"]) == ROLE_GROUPS["registry-services"]
