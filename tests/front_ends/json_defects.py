"""Defects of JSON, as functions that turn a valid body into one that is refused whole."""

import re
from collections.abc import Callable


def with_member(member: bytes) -> Callable[[bytes], bytes]:
    """Return a function that adds a member to an object, or an item to an array."""

    def changed(text: bytes) -> bytes:
        return text[:-1] + b", " + (b'"x": ' if text.endswith(b"}") else b"") + member + text[-1:]

    return changed


def within_a_string(content: bytes) -> Callable[[bytes], bytes]:
    """Return a function that inserts bytes at the start of the first string value."""
    return lambda text: re.sub(rb'(: \[?")', lambda found: found[1] + content, text, count=1)


JSON_DEFECTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _text: b"",
    "blank": lambda _text: b"  \n",
    "cut": lambda text: text[:-1],
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text,
    "UTF-16 with a mark": lambda text: text.decode().encode("utf-16"),
    "UTF-16": lambda text: text.decode().encode("utf-16-le"),
    "UTF-32": lambda text: text.decode().encode("utf-32-be"),
    "no UTF-8": within_a_string(b"\xff"),
    "overlong UTF-8": within_a_string(b"\xc1\xa1"),
    "surrogate in UTF-8": within_a_string(b"\xed\xa0\x80"),
    "a second document": lambda text: text + b" {}",
    "text behind it": lambda text: text + b" x",
    "NUL behind it": lambda text: text + b"\x00",
    "comment": lambda text: b"/* */ " + text,
    "single quotes": lambda text: text.replace(b'"', b"'"),
    "comma at the end": lambda text: text[:-1] + b"," + text[-1:],
    "control character": within_a_string(b"\n"),
    "half an escape": within_a_string(b"\\u1"),
    "no escape": within_a_string(b"\\x41"),
    "key twice": lambda text: text.replace(b"}", b', "namespace": "a", "namespace": "a"}', 1),
    "key twice further in": with_member(b'{"a": 1, "a": 1}'),
    "NaN": with_member(b"NaN"),
    "Infinity": with_member(b"Infinity"),
    "minus Infinity": with_member(b"-Infinity"),
    "zero before a number": with_member(b"01"),
    "plus before a number": with_member(b"+1"),
    "endless digits": with_member(b"9" * 5000),
    "nested too deeply": with_member(b"[" * 9 + b"]" * 9),
    "nested objects": with_member(b'{"a":' * 2000 + b"1" + b"}" * 2000),
    "nested endlessly": lambda _text: b"[" * 50_000,
    "form": lambda _text: b"service_name=web&instance_id=web-1",
}
