"""Answers that are kept for those who ask the same."""

from service_registry.asgi.reads.response_cache import Texts

WEB, API = ("default", "web", ""), ("default", "api", "")


def test_a_text_is_given_at_its_index_alone() -> None:
    texts = Texts()
    texts.keep(WEB, "m-1", b"one")
    assert texts.get(WEB, "m-1") == b"one"
    assert texts.get(WEB, "m-2") is None
    assert texts.get(API, "m-1") is None


def test_a_newer_text_takes_the_place_of_the_older() -> None:
    texts = Texts()
    texts.keep(WEB, "m-1", b"one")
    texts.keep(WEB, "m-2", b"three")
    assert (texts.get(WEB, "m-1"), texts.get(WEB, "m-2"), texts.held_bytes) == (None, b"three", 5)


def test_what_was_not_asked_for_the_longest_makes_room() -> None:
    texts = Texts(at_most_bytes=10)
    texts.keep(WEB, "m-1", b"12345")
    texts.keep(API, "m-1", b"12345")
    assert texts.get(WEB, "m-1")
    texts.keep(("default", "new", ""), "m-1", b"1")
    assert (texts.get(API, "m-1"), texts.get(WEB, "m-1")) == (None, b"12345")
    texts.keep(WEB, "m-2", b"12345678901")
    assert (texts.get(WEB, "m-2"), texts.held_bytes) == (None, 1)
