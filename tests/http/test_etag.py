"""Entity tags of discovery."""

import pytest

from service_registry.http.etag import entity_tag, matches, query_digest, query_key
from service_registry.schemas import DiscoveryQuery, ListQuery

TAG = entity_tag("0123abcd-7", "query")
OPAQUE = TAG.removeprefix("W/")


def test_tag_differs_between_indexes_and_queries() -> None:
    assert entity_tag("0123abcd-7", "query") == TAG
    assert len({TAG, entity_tag("0123abcd-8", "query"), entity_tag("0123abcd-7", "other")}) == 3
    assert query_digest("query") != query_digest("other")


def test_query_key_leaves_out_the_path_and_how_long_the_caller_waits() -> None:
    query, waiting = DiscoveryQuery(name="web"), DiscoveryQuery(name="api", index="0123abcd-7", wait="5s")
    assert query_key(query) == query_key(waiting) != query_key(DiscoveryQuery(name="web", zone="eu"))


def test_query_key_has_the_name_that_a_list_is_filtered_by() -> None:
    assert query_key(ListQuery(name="web")) != query_key(ListQuery(name="api"))


@pytest.mark.parametrize("header", [TAG, OPAQUE, f'"other", {TAG}', f'"other",{OPAQUE}', "*", " * "])
def test_header_that_names_the_tag_matches(header: str) -> None:
    assert matches(header, TAG)


@pytest.mark.parametrize("header", [None, "", '"other"', OPAQUE.strip('"'), TAG[:-1], f'"x{OPAQUE[1:]}'])
def test_header_that_does_not_name_the_tag_does_not_match(header: str | None) -> None:
    assert not matches(header, TAG)
