"""Request ids."""

import re

import pytest

from service_registry.http.request_id import safe_or_new


@pytest.mark.parametrize("sent", ["a", "A.z_0:9-", "x" * 128])
def test_safe_id_is_kept(sent: str) -> None:
    assert safe_or_new(sent) == sent


@pytest.mark.parametrize("sent", ["", "x" * 129, "a b", "a\n", "\x1b[31m", "é", 'a"b', "a,b"])
def test_other_text_is_replaced_by_a_random_id(sent: str) -> None:
    ids = {safe_or_new(sent) for _ in range(2)}
    assert len(ids) == 2
    assert all(re.fullmatch(r"[0-9a-f]{32}", each) for each in ids)
