import sys
from typing import Any

from django.core.management.base import BaseCommand

from service_registry.transfer import exporting


class Command(BaseCommand):
    help = "Print all services, instances on the list and overrides, as JSON lines for import_registry."

    def handle(self, **_: Any) -> None:
        counted = 0
        for line in exporting.lines():
            self.stdout.write(line)
            counted += 1
        self.stderr.write(f"{counted} lines.")
        sys.stderr.flush()
