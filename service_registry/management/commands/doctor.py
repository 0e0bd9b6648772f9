import json
import sys
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from service_registry.management import doctor


class Command(BaseCommand):
    help = "Check the registry and its dependencies; the exit code is 1 when a check fails."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print a JSON array of objects")

    def handle(self, *, json: bool, **_: Any) -> None:
        findings = self.print_json() if json else self.print_lines()
        if any(finding.level == "fail" for finding in findings):
            sys.exit(1)

    def print_lines(self) -> list[doctor.Finding]:
        findings = []
        for name, finding in doctor.run_checks():
            advice = f"; {finding.advice}" if finding.advice else ""
            self.stdout.write(f"{finding.level:5} {name:12} {finding.message}{advice}.")
            findings.append(finding)
        return findings

    def print_json(self) -> list[doctor.Finding]:
        found = list(doctor.run_checks())
        self.stdout.write(json.dumps([{"check": name, **asdict(finding)} for name, finding in found]))
        return [finding for _name, finding in found]
