"""Signed cursors."""

import pytest

from service_registry.exceptions import InvalidInput
from service_registry.http import cursors
from service_registry.queries.catalogue import ListPosition

POSITION = ListPosition("0123abcd-7", "default", "web")


def test_cursor_returns_what_it_was_made_of() -> None:
    assert cursors.decode(cursors.encode(POSITION)) == POSITION
    assert cursors.decode_change(cursors.encode_change(7)) == 7


def test_no_cursor_is_the_beginning() -> None:
    assert cursors.decode(None) is None
    assert cursors.decode_change(None) is None


@pytest.mark.parametrize(
    "cursor",
    ["", "nonsense", "a:b", cursors.encode(POSITION)[:-1], f"x{cursors.encode(POSITION)}", cursors.encode_change(7)],
)
def test_cursor_that_was_not_signed_for_the_list_is_invalid(cursor: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        cursors.decode(cursor)
    assert list(refused.value.errors) == ["after"]


def test_cursor_of_the_list_is_invalid_for_the_history() -> None:
    with pytest.raises(InvalidInput):
        cursors.decode_change(cursors.encode(POSITION))
