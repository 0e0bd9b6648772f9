"""Compare the changes that the watchers of a run received with the log."""

import itertools
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass
class Findings:
    """Sums over all watchers of a run.

    Attributes:
        disturbances: how often processes or connections were ended.
        arrivals: changes received.
        resumes: how often a watcher resumed from an index, failed attempts included.
        comparisons: of the copy since the beginning with one from a list that was read later.
        started_over: how often a watcher had to list again.
        unfinished: watchers that did not receive the last change in time.
    """

    changes: int
    disturbances: int = 0
    seconds: float = 0
    watchers: int = 0
    arrivals: int = 0
    resumes: int = 0
    comparisons: int = 0
    missed: int = 0
    repeated: int = 0
    out_of_order: int = 0
    copies_that_differ: int = 0
    started_over: int = 0
    unfinished: int = 0

    @property
    def faults(self) -> int:
        wrong = self.missed + self.repeated + self.out_of_order
        return wrong + self.copies_that_differ + self.started_over + self.unfinished

    def add(self, result: Any, log: Sequence[int], whole: dict[str, Any]) -> None:
        """Compare one watcher's changes with the log of the run, and its copy with the list at the end."""
        ids: list[int] = result["ids"]
        expected = log[bisect_right(log, result["began_at"]) :]
        self.watchers += 1
        self.arrivals += len(ids)
        self.resumes += result["resumes"]
        self.comparisons += result["comparisons"]
        self.started_over += result["starts"] - 1
        self.copies_that_differ += result["differences"] + (result["copy"] != whole)
        if ids != expected:
            self.missed += len(set(expected) - set(ids))
            self.repeated += len(ids) - len(set(ids))
            self.out_of_order += sum(later < earlier for earlier, later in itertools.pairwise(ids))

    def __str__(self) -> str:
        return (
            f"{self.changes:,} changes, {self.arrivals:,} arrivals at {self.watchers} watchers, {self.resumes:,}"
            f" resumes, {self.comparisons + self.watchers:,} copies compared, {self.disturbances} disturbances,"
            f" {self.seconds:.0f} s: {self.missed} missed, {self.repeated} repeated, {self.out_of_order} out of order,"
            f" {self.copies_that_differ} copies differ, {self.started_over} started over, {self.unfinished} unfinished"
        )
