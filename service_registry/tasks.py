"""What Celery beat does now and then."""

from celery import shared_task

from service_registry.expiry.sweep import sweep as sweep_once


@shared_task(name="service_registry.tasks.sweep")
def sweep() -> None:
    sweep_once()
