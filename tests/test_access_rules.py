"""The copy of the access rules that a process keeps."""

import pytest
from django.contrib.auth.models import Group, Permission
from django.db import ProgrammingError, connection

from service_registry.access_rules import AccessRulesCache, read_rules
from service_registry.caller import Caller
from service_registry.exceptions import NotMigrated
from service_registry.permissions import ROLE_GROUPS


def test_rules_of_a_migrated_database_have_the_role_groups(db: None) -> None:
    rules = read_rules()
    for group, granted in ROLE_GROUPS.items():
        assert rules.granted_to([group]) == granted
        assert rules.is_role(group)


def test_permissions_of_several_groups_are_added_up(db: None) -> None:
    rules = read_rules()
    granted = rules.granted_to(["registry-readers", "registry-services", "no-such-group"])
    assert granted == ROLE_GROUPS["registry-readers"] | ROLE_GROUPS["registry-services"]
    assert rules.granted_to(["no-such-group"]) == frozenset()


def test_group_with_permissions_of_another_app_is_a_role(db: None) -> None:
    staff = Group.objects.create(name="staff")
    Group.objects.create(name="team")
    staff.permissions.add(Permission.objects.get(codename="add_group"))
    rules = read_rules()
    assert (rules.is_role("staff"), rules.is_role("team")) == (True, False)
    assert rules.granted_to(["staff"]) == frozenset()
    assert Caller("x", frozenset({"staff", "team"}), frozenset()).claimable_groups() == ["team"]


def test_cache_reads_the_rules_again_only_when_they_are_too_old(db: None) -> None:
    cache = AccessRulesCache()
    first = cache.current()
    Group.objects.get(name="registry-readers").permissions.clear()
    assert cache.current() is first
    cache.invalidate()
    assert not cache.current().is_role("registry-readers")


def test_refresh_keeps_the_object_while_the_rules_are_the_same(db: None) -> None:
    """It is a part of the generation by which callers are remembered."""
    cache = AccessRulesCache()
    first = cache.refresh()
    assert cache.refresh() is first
    Group.objects.get(name="registry-readers").permissions.clear()
    assert cache.refresh() is not first


def test_refresh_during_an_outage_keeps_the_last_rules(transactional_db: None) -> None:
    cache, without_rules = AccessRulesCache(), AccessRulesCache()
    first = cache.current()
    cache.invalidate()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE auth_group RENAME TO auth_group_away")
    try:
        assert cache.current() is first
        with pytest.raises(ProgrammingError):
            without_rules.current()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE auth_group_away RENAME TO auth_group")


def test_database_without_roles_is_not_migrated(db: None) -> None:
    cache = AccessRulesCache()
    cache.current()
    Group.objects.all().delete()
    with pytest.raises(NotMigrated):
        cache.refresh()
    assert cache.latest is None
