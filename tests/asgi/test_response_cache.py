"""The cache of rendered responses."""

from service_registry.asgi.reads.response_cache import ResponseCache, size_of

WEB, API = ("default", "web", ""), ("default", "api", "")
FIVE_BYTES = size_of(WEB, b"12345")


def test_body_is_returned_only_at_its_index() -> None:
    cache = ResponseCache()
    cache.put(WEB, "m-1", b"one")
    assert cache.get(WEB, "m-1") == b"one"
    assert cache.get(WEB, "m-2") is None
    assert cache.get(API, "m-1") is None


def test_newer_body_replaces_the_older() -> None:
    cache = ResponseCache()
    cache.put(WEB, "m-1", b"one")
    cache.put(WEB, "m-2", b"three")
    assert (cache.get(WEB, "m-1"), cache.get(WEB, "m-2"), cache.held_bytes) == (None, b"three", FIVE_BYTES)


def test_full_cache_evicts_the_least_recently_used_body() -> None:
    cache = ResponseCache(max_bytes=2 * FIVE_BYTES)
    cache.put(WEB, "m-1", b"12345")
    cache.put(API, "m-1", b"12345")
    assert cache.get(WEB, "m-1")
    cache.put(("default", "new", ""), "m-1", b"1")
    assert (cache.get(API, "m-1"), cache.get(WEB, "m-1")) == (None, b"12345")


def test_body_larger_than_the_cache_is_not_kept() -> None:
    cache = ResponseCache(max_bytes=2 * FIVE_BYTES)
    cache.put(API, "m-1", b"12345")
    cache.put(WEB, "m-1", b"12345")
    cache.put(WEB, "m-2", b"1" * 2 * FIVE_BYTES)
    assert (cache.get(WEB, "m-2"), cache.get(WEB, "m-1"), cache.held_bytes) == (None, None, FIVE_BYTES)


def test_long_queries_with_small_bodies_fill_the_cache() -> None:
    cache = ResponseCache(max_bytes=100_000)
    for number in range(20):
        cache.put(("default", "web", f"{number}{'x' * 10_000}"), "m-1", b"[]")
    assert len(cache.entries) < 10
