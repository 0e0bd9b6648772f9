import json
import sys
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from service_registry.management import doctor


class Command(BaseCommand):
    help = "Examine the registry and what it depends on; the exit code is 1 when something fails."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print a list of objects, for programs")

    def handle(self, *, json: bool, **_: Any) -> None:
        findings = self.in_json() if json else self.in_lines()
        if any(finding.level == "fail" for finding in findings):
            sys.exit(1)

    def in_lines(self) -> list[doctor.Finding]:
        findings = []
        for name, finding in doctor.examine():
            advice = f"; {finding.advice}" if finding.advice else ""
            self.stdout.write(f"{finding.level:5} {name:12} {finding.said}{advice}.")
            findings.append(finding)
        return findings

    def in_json(self) -> list[doctor.Finding]:
        found = list(doctor.examine())
        self.stdout.write(json.dumps([{"check": name, **asdict(finding)} for name, finding in found]))
        return [finding for _name, finding in found]
