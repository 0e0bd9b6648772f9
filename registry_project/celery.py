"""The Celery application: periodic tasks.

Without a broker one process is both worker and beat, with an in-memory queue between the two.
"""

import os
from typing import Any

from celery import Celery
from celery.beat import EmbeddedService
from celery.schedules import crontab
from celery.signals import setup_logging, worker_ready, worker_shutdown
from django.conf import settings
from django.utils.log import configure_logging

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry_project.settings")

from service_registry.checks import require_valid_settings

require_valid_settings()

app = Celery("registry_project")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
# By the clock and not a day after the start, since beat does not record its last run. These entries are not in the
# settings: there, each web process would have to import Celery for them.
app.conf.beat_schedule = settings.CELERY_BEAT_SCHEDULE | {
    "prune_changes": {
        "task": "service_registry.tasks.prune_changes",
        "schedule": crontab(hour="3", minute="17"),
        "options": {"expires": 3600.0},
    },
    "end_empty_services": {
        "task": "service_registry.tasks.end_empty_services",
        "schedule": crontab(minute="27"),
        "options": {"expires": 600.0},
    },
    "clear_sessions": {
        "task": "service_registry.tasks.clear_sessions",
        "schedule": crontab(minute="7"),
        "options": {"expires": 600.0},
    },
}

# An in-memory queue exists in one process alone. The beat that `worker -B` starts is another process, and its tasks
# would reach no worker; so beat runs in a thread of the worker.
IN_MEMORY = str(settings.CELERY_BROKER_URL).startswith("memory:")

if IN_MEMORY:
    app.conf.worker_pool = "solo"
    beat: Any = EmbeddedService(app, thread=True, scheduler_cls="celery.beat:Scheduler")

    @worker_ready.connect
    def start_beat(**_: Any) -> None:
        beat.start()

    @worker_shutdown.connect
    def stop_beat(**_: Any) -> None:
        if beat.is_alive():
            beat.stop()


@setup_logging.connect
def keep_django_logging(**_: Any) -> None:
    """Set up the logging of the settings.

    While this signal has a receiver, Celery configures no handlers itself.
    """
    configure_logging(settings.LOGGING_CONFIG, settings.LOGGING)
