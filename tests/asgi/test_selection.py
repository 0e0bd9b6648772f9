"""The selections of recent queries, and their bounds."""

from django.http import QueryDict

from service_registry.asgi.reads.selection import MAX_QUERIES, MAX_QUERY_BYTES, Selection, SelectionCache
from service_registry.http.validation import validate_query
from service_registry.schemas import DiscoveryQuery


def selection_of(query_string: str, name: str = "web") -> Selection:
    return Selection.from_query(validate_query(DiscoveryQuery, QueryDict(query_string), name=name))


def test_selection_depends_on_the_query_alone() -> None:
    assert selection_of("zone=eu&status=all") == selection_of("status=all&zone=eu", "api")
    assert selection_of("zone=eu").digest != selection_of("zone=us").digest != selection_of("").digest
    assert selection_of("wait=5s") == selection_of("wait=7s")


def test_namespace_is_named_only_by_the_query() -> None:
    plain, named = selection_of(""), selection_of("namespace=default")
    assert (plain.namespace, plain.named_namespace) == ("default", None)
    assert (named.namespace, named.named_namespace, named.digest) == ("default", "default", plain.digest)


def test_many_queries_evict_the_oldest() -> None:
    cache, selection = SelectionCache(), selection_of("")
    for number in range(2 * MAX_QUERIES):
        cache.put(b"zone=%d" % number, selection)
    assert len(cache.selections) == MAX_QUERIES
    assert cache.find(b"zone=0") is None
    assert cache.find(b"zone=%d" % (2 * MAX_QUERIES - 1)) is selection


def test_long_queries_are_not_kept() -> None:
    cache, selection = SelectionCache(), selection_of("")
    cache.put(b"x" * (MAX_QUERY_BYTES + 1), selection)
    cache.put(b"x" * MAX_QUERY_BYTES, selection)
    assert list(cache.selections) == [b"x" * MAX_QUERY_BYTES]
