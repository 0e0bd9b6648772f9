"""Run the periodic work of Celery beat."""

import logging
import time

from celery import shared_task
from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore

from service_registry import logs
from service_registry.changelog import prune
from service_registry.expiry import empty_services
from service_registry.expiry.sweep import sweep as sweep_once

logger = logging.getLogger(__name__)


@shared_task(name="service_registry.tasks.sweep")
def sweep() -> None:
    """Sweep once."""
    sweep_once()


@shared_task(name="service_registry.tasks.prune_changes")
def prune_changes() -> None:
    """Prune changes older than REGISTRY_CHANGE_RETENTION_DAYS, and log how many."""
    begun = time.monotonic()
    plan = prune.plan_pruning(settings.REGISTRY_CHANGE_RETENTION_DAYS * 86400)
    pruned = sum(step.obsolete for step in prune.prune(plan))
    fields = {"actor": "system:prune", "outcomes": {"pruned": pruned}}
    logs.log_event(logger, logging.INFO, "prune", fields | {"duration_ms": round((time.monotonic() - begun) * 1000, 3)})


@shared_task(name="service_registry.tasks.end_empty_services")
def end_empty_services() -> None:
    """End services that were empty for REGISTRY_EMPTY_SERVICE_DAYS, and log how many."""
    if ended := empty_services.end_empty_services():
        fields = {"actor": empty_services.ACTOR, "outcomes": {"ended": ended}}
        logs.log_event(logger, logging.INFO, "empty services", fields)


@shared_task(name="service_registry.tasks.clear_sessions")
def clear_sessions() -> None:
    """Delete expired sessions of the admin."""
    SessionStore.clear_expired()
