"""GET /registry/changes while others write to the log, and prune it: a walk gives every change once, in order."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from django.db import connection, connections

from service_registry import manager
from service_registry.caller import Caller
from service_registry.changelog.history import read_history
from service_registry.models import Change
from service_registry.schemas import ChangesQuery, Registration
from tests.client import registration

pytestmark = pytest.mark.django_db(transaction=True)

OPERATOR = Caller("operator", frozenset(), frozenset({"view_change"}))
OWNER = Caller("owner", frozenset({"team"}), frozenset({"register_instance", "view_instance"}))
A_PAGE = 3
MORE_THAN_A_PAGE = 10
STATEMENTS_A_PAGE = 6  # and more


def register(weight: int, namespace: str = "default") -> None:
    """One commit of more changes than a page has."""
    each = {"namespace": namespace, "weight": weight}
    fleet = [Registration(**registration("web", f"i-{number}", **each)) for number in range(MORE_THAN_A_PAGE)]
    manager.register(fleet, OWNER)


def alongside(work: Callable[[], Any]) -> None:
    """On a connection of its own."""
    try:
        work()
    finally:
        connections.close_all()


class Meanwhile:
    """Does `work` on another connection, once, after so many of our statements and before the next one."""

    def __init__(self, statements: int, work: Callable[[], Any]) -> None:
        self.left = statements
        self.work = work

    def __call__(self, execute: Callable[..., Any], *statement: Any) -> Any:
        done = execute(*statement)
        self.left -= 1
        if self.left == 0:
            with ThreadPoolExecutor(1) as thread:
                thread.submit(alongside, self.work).result(30)
        return done


def walk(query: dict[str, Any], caller: Caller, after: int, may_stop: Callable[[], bool]) -> list[int]:
    """The ids that a reader sees from `after` on, who repeats a page that no other follows until it may stop."""
    asked = ChangesQuery(limit=str(A_PAGE), **query)
    seen: list[int] = []
    while True:
        stopping = may_stop()
        page = read_history(asked, caller, after, rows_searched=A_PAGE + 1)
        found = [change.pk for change in page.changes]
        if page.next is not None:
            seen, after = seen + found, page.next
        elif stopping:
            return seen + found


def walk_while(meanwhile: Meanwhile, query: dict[str, Any], caller: Caller, after: int) -> list[int]:
    with connection.execute_wrapper(meanwhile):
        return walk(query, caller, after, lambda: meanwhile.left <= 0)


def newest() -> int:
    return Change.objects.latest("id").pk


def ids(**which: Any) -> list[int]:
    return list(Change.objects.filter(**which).order_by("id").values_list("id", flat=True))


@pytest.mark.parametrize(
    ("caller", "query"),
    [
        (OPERATOR, {}),
        (OPERATOR, {"namespace": "default"}),
        (OPERATOR, {"kind": ["updated"]}),
        (OPERATOR, {"service": "web"}),
        (OPERATOR, {"service": "web", "namespace": "default"}),
        (OWNER, {"service": "web", "kind": ["updated"]}),
        (OWNER, {"service": "web", "namespace": "default"}),
    ],
)
def test_what_commits_between_two_statements_is_on_the_pages_after(caller: Caller, query: dict[str, Any]) -> None:
    register(0)
    for statements in range(1, STATEMENTS_A_PAGE + 1):
        end = newest()
        seen = walk_while(Meanwhile(statements, partial(register, statements)), query, caller, end)
        assert len(seen) == MORE_THAN_A_PAGE, statements
        assert seen == ids(id__gt=end), statements


@pytest.mark.parametrize("caller", [OPERATOR, OWNER])
def test_a_service_that_begins_in_another_namespace_meanwhile_is_not_passed_by(caller: Caller) -> None:
    register(0)
    for statements in range(1, STATEMENTS_A_PAGE + 1):
        end = newest()

        def begin_another(statements: int = statements) -> None:
            register(0, f"namespace-{statements}")
            register(statements)

        assert walk_while(Meanwhile(statements, begin_another), {"service": "web"}, caller, end) == ids(id__gt=end)


@pytest.mark.parametrize("query", [{"kind": ["updated"]}, {"kind": ["updated"], "service": "web"}])
def test_the_search_does_not_jump_over_what_is_pruned_meanwhile(query: dict[str, Any]) -> None:
    register(0)
    for statements in range(1, STATEMENTS_A_PAGE + 1):
        end = newest()
        register(statements, f"namespace-{statements}")
        spent = Change.objects.filter(id__gt=end, kind="registered")
        register(statements)
        assert walk_while(Meanwhile(statements, spent.delete), query, OPERATOR, end) == ids(id__gt=end, kind="updated")


def test_a_walk_beside_a_writer_sees_every_change_once_and_in_order() -> None:
    register(0)
    end, commits = newest(), 300

    def write() -> None:
        for weight in range(1, commits + 1):
            register(weight)

    with ThreadPoolExecutor(1) as thread:
        writer = thread.submit(alongside, write)
        seen = walk({}, OPERATOR, end, writer.done)
        writer.result()
    lost = set(ids(id__gt=end)) - set(seen)
    print(f"{len(lost)} of {commits * MORE_THAN_A_PAGE} changes lost")
    assert len(seen) == commits * MORE_THAN_A_PAGE
    assert seen == ids(id__gt=end)
