"""Run a checker: the process that calls instances which ask for a health check."""

import asyncio
import os
import signal
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from service_registry.health.checker import Checker
from service_registry.health.network import configured_networks
from service_registry.health.probes.connection import RESOLVER_OPTIONS
from service_registry.health.probes.tls import tls_context


class Command(BaseCommand):
    help = "Check the health of the instances that ask for it, until SIGTERM or Ctrl-C. Several share the work."

    def handle(self, **_: Any) -> None:
        os.environ.setdefault("RES_OPTIONS", RESOLVER_OPTIONS)
        try:
            tls_context(verify=True)
        except OSError as error:
            raise CommandError(f"REGISTRY_HEALTH_CA_FILE has no usable certificates: {error}") from error
        if not configured_networks():
            self.stdout.write("REGISTRY_HEALTH_NETWORKS names no network: no check will pass the network rule.")
        asyncio.run(run())


async def run() -> None:
    checker = Checker()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, checker.stop)
    await checker.run()
