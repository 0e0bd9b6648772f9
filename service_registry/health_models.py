"""The tables of health checks: the standing of each instance that is checked, and the checkers."""

from datetime import timedelta

from django.db import models
from django.db.models import QuerySet
from django.db.models.functions import Now


class HealthStanding(models.Model):
    """The standing of an instance between two health checks, beside `Instance.health`, and the last result.

    The checker makes the row, and begins anew with each `epoch`. Times in seconds are the database's. `health.standing`
    has the rules.
    """

    # Without a constraint: who deletes an instance need not know of its checks, and the checker deletes the row.
    instance = models.OneToOneField(
        "Instance", on_delete=models.DO_NOTHING, primary_key=True, related_name="standing", db_constraint=False
    )
    epoch = models.BigIntegerField()
    due_at = models.DateTimeField()
    failures = models.IntegerField(default=0)
    better = models.IntegerField(default=0)
    better_since = models.FloatField(null=True)
    improved_at = models.FloatField(null=True)
    flapping = models.BooleanField(default=False)
    checked_at = models.DateTimeField(null=True)
    level = models.TextField(null=True)  # noqa: DJ001 (null: not checked yet)
    cause = models.TextField(null=True)  # noqa: DJ001
    output = models.TextField(null=True)  # noqa: DJ001
    seconds = models.FloatField(null=True)

    class Meta:
        default_permissions = ()
        indexes = [models.Index(fields=["due_at"], name="health_standing_due")]

    def __str__(self) -> str:
        return f"health of {self.instance_id}"


class HealthCheckerQuerySet(QuerySet["HealthChecker"]):
    """Checkers by what they have reported."""

    def present(self) -> "HealthCheckerQuerySet":
        """Return the checkers that have reported lately: they report once a second."""
        lately = timedelta(seconds=10)
        # A time in the future is that of a clock that has been set back.
        return self.filter(seen_at__gt=Now() - lately, seen_at__lt=Now() + lately)


class HealthChecker(models.Model):
    """A process that runs health checks, as it reports itself. `name` has its machine and process id."""

    name = models.TextField(primary_key=True, db_collation="C")
    seen_at = models.DateTimeField(db_default=Now())
    cut_off = models.BooleanField()

    objects = HealthCheckerQuerySet.as_manager()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return self.name
