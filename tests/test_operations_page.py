"""docs/operations.md against the code: commands, their options, checks of the doctor and fields of the log."""

import re

import pytest
from django.core.management import load_command_class
from django.core.management.base import BaseCommand, CommandParser

from service_registry import logs
from service_registry.management import doctor
from tests.commands import ROOT

PAGE = (ROOT / "docs" / "operations.md").read_text()
COMMANDS = sorted(path.stem for path in (ROOT / "service_registry/management/commands").glob("[a-z]*.py"))


def options_of(parser: CommandParser) -> set[str]:
    return set(re.findall(r"--[a-z-]+", parser.format_help()))


def table_row(first_word: str) -> str:
    row = re.search(rf"^\| `{first_word}[ `].*$", PAGE, re.MULTILINE)
    assert row, first_word
    return row[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_page_lists_the_command_with_its_options(command: str) -> None:
    parser = load_command_class("service_registry", command).create_parser("manage.py", command)
    options = options_of(parser) - options_of(BaseCommand().create_parser("manage.py", command))
    assert {option for option in options if not re.search(rf"`{option}\b", table_row(command))} == set()


def test_page_lists_no_other_command() -> None:
    section = PAGE.partition("## Commands")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"^\| `(\w+)[ `]", section, re.MULTILINE)) == COMMANDS


def test_page_shows_every_check_of_the_doctor() -> None:
    shown = re.findall(r"^    (?:ok|warn)\s+(.{12}) ", PAGE, re.MULTILINE)
    checks = [*doctor.OUTSIDE_THE_DATABASE, "database", *doctor.IN_THE_DATABASE]
    assert [name.strip() for name in shown] == checks


def test_page_describes_every_field_of_the_log() -> None:
    assert {field for field in (*logs.FIELDS, "event", "exception") if f"`{field}`" not in PAGE} == set()
