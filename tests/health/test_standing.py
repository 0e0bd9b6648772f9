"""Thresholds and damping, over sequences of results."""

import random

import pytest

from service_registry.choices import Health
from service_registry.health.standing import STEADY_SECONDS, Standing, Thresholds, judge

LEVELS = {"p": Health.PASSING, "w": Health.WARNING, "f": Health.CRITICAL}


DEFAULT = Thresholds()


def run(results: str, thresholds: Thresholds = DEFAULT, seconds: float = 10.0) -> list[Standing]:
    """Return the standing after each result; one letter each, `seconds` apart."""
    standings, standing = [], Standing()
    for number, letter in enumerate(results):
        standing = judge(standing, LEVELS[letter], number * seconds, thresholds)
        standings.append(standing)
    return standings


def letters(standings: list[Standing]) -> str:
    return "".join(standing.status[0] for standing in standings)


@pytest.mark.parametrize(
    ("results", "statuses"),
    [
        ("p", "p"),
        ("w", "w"),
        ("fff", "uuc"),
        ("pff", "ppp"),
        ("pfff", "pppc"),
        ("pffpff", "pppppp"),
        ("pfffp", "pppcc"),
        ("pfffpp", "pppccp"),
        ("pfffpfpp", "pppccccp"),
        ("pw", "pw"),
        ("pwp", "pww"),
        ("pwpp", "pwwp"),
        ("pfffww", "pppccw"),
        ("wfff", "wwwc"),
        ("fpf", "upp"),
    ],
)
def test_thresholds(results: str, statuses: str) -> None:
    assert letters(run(results)) == statuses


def changes(standings: list[Standing]) -> list[int]:
    return [number for number in range(1, len(standings)) if standings[number].status != standings[number - 1].status]


@pytest.mark.parametrize("worse", ["f", "w"])
def test_one_that_alternates_each_second_stays_down(worse: str) -> None:
    standings = run(("p" + worse) * 1800, Thresholds(1, 1), seconds=1)
    assert len(changes(standings)) <= 4
    assert standings[-1].flapping
    assert standings[-1].status is LEVELS[worse]


def test_one_that_flaps_comes_back_after_a_minute_without_a_failure() -> None:
    standings = run("pfpf" + "p" * 90, Thresholds(1, 1), seconds=1)
    back = changes(standings)[-1]
    assert (standings[back].status, back) == (Health.PASSING, 4 + STEADY_SECONDS)


def test_one_that_flapped_is_forgiven_when_it_stays_well() -> None:
    standings = run("pfpf" + "p" * 1000 + "fp", Thresholds(1, 1), seconds=1)
    assert not standings[-3].flapping
    assert letters(standings[-2:]) == "cp"


def test_random_results_never_keep_a_failing_one_up_and_change_seldom() -> None:
    for seed in range(40):
        chance = random.Random(seed)
        results = "".join(chance.choices("pwf", weights=[chance.random() for _ in range(3)], k=3600))
        thresholds = Thresholds(chance.randint(1, 4), chance.randint(1, 4))
        standings = run(results, thresholds, seconds=1)
        failing = "f" * thresholds.unhealthy_after
        for number, standing in enumerate(standings):
            if results[max(0, number + 1 - thresholds.unhealthy_after) : number + 1] == failing:
                assert standing.status is Health.CRITICAL, seed
        assert len(changes(standings)) <= 60, seed
