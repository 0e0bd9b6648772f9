"""Celery: what goes by the clock. Without a broker one process is worker and beat, with an in-memory queue between."""

import functools
import os
from typing import Any

from celery import Celery
from celery.beat import EmbeddedService
from celery.schedules import crontab
from celery.signals import setup_logging, worker_ready, worker_shutdown
from django.conf import settings
from django.utils.log import configure_logging

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry_project.settings")

app = Celery("registry_project")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
# At its hour, and not a day after the start: beat keeps no record of its last run. It is not in the settings, for which
# each web process would have to load Celery.
app.conf.beat_schedule = settings.CELERY_BEAT_SCHEDULE | {
    "prune_changes": {
        "task": "service_registry.tasks.prune_changes",
        "schedule": crontab(hour="3", minute="17"),
        "options": {"expires": 3600.0},
    }
}


def in_memory() -> bool:
    """Whether the queue lives in this process alone: the beat of `worker -B`, another process, would reach nobody."""
    return str(settings.CELERY_BROKER_URL).startswith("memory:")


if in_memory():
    app.conf.worker_pool = "solo"


@setup_logging.connect
def keep_django_logging(**_: Any) -> None:
    """As long as somebody listens to this signal, Celery leaves the handlers alone that the settings have made."""
    configure_logging(settings.LOGGING_CONFIG, settings.LOGGING)


@functools.cache
def beat() -> Any:
    return EmbeddedService(app, thread=True, scheduler_cls="celery.beat:Scheduler")


@worker_ready.connect
def start_beat(**_: Any) -> None:
    if in_memory():
        beat().start()


@worker_shutdown.connect
def stop_beat(**_: Any) -> None:
    if in_memory() and beat().is_alive():
        beat().stop()
