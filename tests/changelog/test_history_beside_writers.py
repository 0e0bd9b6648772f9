"""Reading the history while others append and prune: every change is read once, in order."""

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
PAGE_SIZE = 3
CHANGES_PER_COMMIT = 10
STATEMENTS_PER_PAGE = 6  # at least as many as a page takes


def register(weight: int, namespace: str = "default") -> None:
    """Commit more changes at once than fit on a page."""
    each = {"namespace": namespace, "weight": weight}
    fleet = [Registration(**registration("web", f"i-{number}", **each)) for number in range(CHANGES_PER_COMMIT)]
    manager.register(fleet, OWNER)


def run_and_close_connection(work: Callable[[], Any]) -> None:
    try:
        work()
    finally:
        connections.close_all()


class Interruption:
    """Runs `work` on another connection once, after the given number of statements of this one."""

    def __init__(self, statements: int, work: Callable[[], Any]) -> None:
        self.statements_left = statements
        self.work = work

    def __call__(self, execute: Callable[..., Any], *statement: Any) -> Any:
        done = execute(*statement)
        self.statements_left -= 1
        if self.statements_left == 0:
            with ThreadPoolExecutor(1) as thread:
                thread.submit(run_and_close_connection, self.work).result(30)
        return done


def read_all_pages(query: dict[str, Any], caller: Caller, after: int, may_stop: Callable[[], bool]) -> list[int]:
    """Return the ids that a reader sees from `after` on. It repeats the last page until it may stop."""
    page_query = ChangesQuery(limit=str(PAGE_SIZE), **query)
    seen: list[int] = []
    while True:
        stopping = may_stop()
        page = read_history(page_query, caller, after, rows_searched=PAGE_SIZE + 1)
        found = [change.pk for change in page.changes]
        if page.next is not None:
            seen, after = seen + found, page.next
        elif stopping:
            return seen + found


def read_during(interruption: Interruption, query: dict[str, Any], caller: Caller, after: int) -> list[int]:
    with connection.execute_wrapper(interruption):
        return read_all_pages(query, caller, after, lambda: interruption.statements_left <= 0)


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
def test_changes_committed_between_two_statements_are_on_later_pages(caller: Caller, query: dict[str, Any]) -> None:
    register(0)
    for statements in range(1, STATEMENTS_PER_PAGE + 1):
        end = newest()
        seen = read_during(Interruption(statements, partial(register, statements)), query, caller, end)
        assert len(seen) == CHANGES_PER_COMMIT, statements
        assert seen == ids(id__gt=end), statements


@pytest.mark.parametrize("caller", [OPERATOR, OWNER])
def test_service_that_starts_in_another_namespace_meanwhile_is_not_skipped(caller: Caller) -> None:
    register(0)
    for statements in range(1, STATEMENTS_PER_PAGE + 1):
        end = newest()

        def start_in_another_namespace(statements: int = statements) -> None:
            register(0, f"namespace-{statements}")
            register(statements)

        assert read_during(
            Interruption(statements, start_in_another_namespace), {"service": "web"}, caller, end
        ) == ids(id__gt=end)


@pytest.mark.parametrize("query", [{"kind": ["updated"]}, {"kind": ["updated"], "service": "web"}])
def test_search_while_rows_are_pruned_skips_no_change(query: dict[str, Any]) -> None:
    register(0)
    for statements in range(1, STATEMENTS_PER_PAGE + 1):
        end = newest()
        register(statements, f"namespace-{statements}")
        obsolete = Change.objects.filter(id__gt=end, kind="registered")
        register(statements)
        assert read_during(Interruption(statements, obsolete.delete), query, OPERATOR, end) == ids(
            id__gt=end, kind="updated"
        )


def test_history_beside_a_writer_has_every_change_once_and_in_order() -> None:
    register(0)
    end, commits = newest(), 300

    def write() -> None:
        for weight in range(1, commits + 1):
            register(weight)

    with ThreadPoolExecutor(1) as thread:
        writer = thread.submit(run_and_close_connection, write)
        seen = read_all_pages({}, OPERATOR, end, writer.done)
        writer.result()
    lost = set(ids(id__gt=end)) - set(seen)
    print(f"{len(lost)} of {commits * CHANGES_PER_COMMIT} changes lost")
    assert len(seen) == commits * CHANGES_PER_COMMIT
    assert seen == ids(id__gt=end)
