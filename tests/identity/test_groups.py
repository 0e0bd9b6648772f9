"""Group claims in every shape."""

from typing import Any

import pytest

from service_registry.identity.groups import MAX_GROUPS, groups_of


@pytest.mark.parametrize(
    ("claims", "path", "groups"),
    [
        ({"groups": ["a", "b"]}, "groups", {"a", "b"}),
        ({"groups": "registry-admins"}, "groups", {"registry-admins"}),
        ({"groups": ["/team", "//odd", "/a/b"]}, "groups", {"team", "/odd", "a/b"}),
        ({"realm_access": {"roles": ["r"]}}, "realm_access.roles", {"r"}),
        ({"resource_access": {"my.client": {"roles": ["r"]}}}, "resource_access.my.client.roles", {"r"}),
        ({"resource_access": {"my": {"client": {"roles": ["r"]}}}}, "resource_access.my.client.roles", {"r"}),
        ({"https://example.com/groups": ["g"]}, "https://example.com/groups", {"g"}),
        ({"cognito:groups": ["g"]}, "cognito:groups", {"g"}),
    ],
)
def test_it_finds_groups_where_issuers_put_them(claims: Any, path: str, groups: set[str]) -> None:
    assert groups_of(claims, [path]) == groups


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"groups": None},
        {"groups": 7},
        {"groups": True},
        {"groups": {"registry-admins": True}},
        {"groups": [["registry-admins"], {"name": "registry-admins"}, 7, None, True]},
        {"groups": ["", "/", "a\n", "a\0", "\x85", "\ud800", "x" * 256]},
        {"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://graph.example"}}},
        {"realm_access": "roles"},
        {"realm_access": ["roles"]},
    ],
    ids=repr,
)
def test_another_shape_holds_no_groups(claims: Any) -> None:
    assert groups_of(claims, ["groups", "realm_access.roles"]) == frozenset()


def test_all_paths_count_together() -> None:
    claims = {"groups": ["a"], "realm_access": {"roles": ["b"]}}
    assert groups_of(claims, ["groups", "realm_access.roles"]) == {"a", "b"}


def test_a_bad_name_does_not_spoil_the_others() -> None:
    assert groups_of({"groups": ["a", 7, "b\n", "x" * 255]}, ["groups"]) == {"a", "x" * 255}


def test_there_is_an_end_to_them() -> None:
    assert len(groups_of({"groups": [str(number) for number in range(MAX_GROUPS + 5)]}, ["groups"])) == MAX_GROUPS
