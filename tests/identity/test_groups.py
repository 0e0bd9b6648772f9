"""Group claims in all formats."""

from typing import Any

import pytest

from service_registry.identity.groups import MAX_GROUPS, read_groups


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
def test_groups_in_a_known_format_are_read(claims: Any, path: str, groups: set[str]) -> None:
    assert read_groups(claims, [path]) == groups


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
def test_groups_in_an_unknown_format_are_ignored(claims: Any) -> None:
    assert read_groups(claims, ["groups", "realm_access.roles"]) == frozenset()


def test_groups_of_all_paths_are_combined() -> None:
    claims = {"groups": ["a"], "realm_access": {"roles": ["b"]}}
    assert read_groups(claims, ["groups", "realm_access.roles"]) == {"a", "b"}


def test_groups_with_invalid_names_are_left_out() -> None:
    assert read_groups({"groups": ["a", 7, "b\n", "x" * 255]}, ["groups"]) == {"a", "x" * 255}


def test_groups_beyond_the_maximum_are_left_out() -> None:
    assert len(read_groups({"groups": [str(number) for number in range(MAX_GROUPS + 5)]}, ["groups"])) == MAX_GROUPS
