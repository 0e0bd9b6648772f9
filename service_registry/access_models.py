"""The tables about who may do what: operators, denied callers, and the keys that sign tokens."""

from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now


class User(AbstractUser):
    """An operator of the admin.

    `issuer` and `subject` identify the person at the OIDC provider.
    """

    issuer = models.TextField(null=True, blank=True)  # noqa: DJ001 (null: a local user)
    subject = models.TextField(null=True, blank=True)  # noqa: DJ001

    class Meta:
        constraints = [models.UniqueConstraint(fields=["issuer", "subject"], name="user_unique_identity")]

    def __str__(self) -> str:
        return self.get_username()

    @property
    def actor(self) -> str:
        """The operator's name in the change log and in the request log."""
        return f"{self.subject}@{self.issuer}" if self.subject else f"admin:{self.get_username()}"


class DenialQuerySet(QuerySet["Denial"]):
    def in_force(self) -> "DenialQuerySet":
        """Return the denials that were not lifted and have not ended."""
        return self.filter(lifted_at__isnull=True).filter(Q(until__isnull=True) | Q(until__gt=Now()))


class Denial(models.Model):
    """The denial of a subject or of an OAuth client of an issuer, whose requests are refused while it is in force.

    The row is kept after its end: it says who denied whom and why, and who lifted it.
    """

    kind = models.TextField(choices=[("subject", "subject"), ("client", "client")])
    issuer = models.TextField()
    name = models.TextField()
    reason = models.TextField()
    actor = models.TextField()
    created_at = models.DateTimeField(db_default=Now())
    until = models.DateTimeField(null=True)
    lifted_at = models.DateTimeField(null=True)
    lifted_by = models.TextField(null=True)  # noqa: DJ001 (null: not lifted)
    lift_reason = models.TextField(null=True)  # noqa: DJ001

    objects = DenialQuerySet.as_manager()

    class Meta:
        default_permissions = ("view",)
        permissions = [("deny_caller", "Can deny callers, and lift denials")]
        constraints = [
            models.CheckConstraint(condition=Q(kind__in=["subject", "client"]), name="denial_kind"),
            models.CheckConstraint(condition=~Q(reason=""), name="denial_has_reason"),
            models.CheckConstraint(condition=Q(until__isnull=True) | Q(until__gt=F("created_at")), name="denial_until"),
        ]
        indexes = [models.Index(fields=["kind", "name"], name="denial_not_lifted", condition=Q(lifted_at__isnull=True))]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class SigningKeys(models.Model):
    """The last valid key set of an issuer, for a start while the issuer is down."""

    issuer = models.TextField(unique=True)
    document = models.JSONField()
    fetched_at = models.DateTimeField(db_default=Now())

    class Meta:
        default_permissions = ()
        verbose_name_plural = "signing keys"

    def __str__(self) -> str:
        return self.issuer
