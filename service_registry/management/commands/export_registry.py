import sys
from typing import Any

from django.core.management.base import BaseCommand

from service_registry.transfer.exporting import export_lines


class Command(BaseCommand):
    help = "Print all services, listed instances and overrides as JSON lines for import_registry."

    def handle(self, **_: Any) -> None:
        count = 0
        for line in export_lines():
            self.stdout.write(line)
            count += 1
        self.stderr.write(f"{count} lines.")
        sys.stderr.flush()
