"""The registry's tables.

States are QuerySet methods, invariants are named constraints. Rows of `Service`, `Instance`, `Lease`,
`Override`, `OwnerUsage` and `Change` are written by `manager`, `expiry` and `changelog` alone, and by `health` where a
result changes `Instance.health` and `Lease.check_failing`.
"""

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import F, Q, QuerySet, Value
from django.db.models.functions import Lower, Now

from service_registry import access_models, health_models  # noqa: F401 (Django finds an app's tables in this module)
from service_registry.choices import ChangeKind, Health, Judge, Rule, Scheme, State, Status


class Service(models.Model):
    """A service: a name for its instances, and the names of the groups that own it."""

    namespace = models.TextField(db_collation="C")
    name = models.TextField(db_collation="C")
    owners = ArrayField(models.TextField())
    created_at = models.DateTimeField(db_default=Now())
    # Created by a registration, and by no operator: it ends when it has been empty for long.
    claimed = models.BooleanField(db_default=False)
    # When an operator released the service: for 15 minutes no instance of it is protected.
    released_at = models.DateTimeField(null=True)

    class Meta:
        default_permissions = ("view",)
        permissions = [("manage_service", "Can change the owners of services, provision and delete them")]
        constraints = [
            models.UniqueConstraint(fields=["namespace", "name"], name="service_unique_name"),
            models.CheckConstraint(condition=Q(name=Lower("name")), name="service_name_in_lower_case"),
            models.CheckConstraint(condition=Q(owners__len__gte=1, owners__len__lte=8), name="service_owner_count"),
        ]
        indexes = [
            GinIndex(fields=["owners"], name="service_by_owner"),
            models.Index(fields=["released_at"], name="service_released", condition=Q(released_at__isnull=False)),
        ]

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class InstanceQuerySet(QuerySet["Instance"]):
    """Instances by the state of their lease.

    The ORM filters on a lease's columns only here.
    """

    def listed(self) -> "InstanceQuerySet":
        return self.filter(lease__expired_at__isnull=True)

    def protected(self) -> "InstanceQuerySet":
        return self.filter(lease__expired_at__isnull=True, lease__protected_at__isnull=False)

    def expired(self) -> "InstanceQuerySet":
        return self.filter(lease__expired_at__isnull=False)

    def checked(self) -> "InstanceQuerySet":
        return self.filter(health_check__isnull=False)

    def permanent(self) -> "InstanceQuerySet":
        return self.filter(lease__ttl_seconds__isnull=True)

    def unjudged(self) -> "InstanceQuerySet":
        """Return permanent instances without a health check: nothing takes them out of discovery when they fail."""
        return self.permanent().filter(health_check__isnull=True)


class Instance(models.Model):
    """A running copy of a service, as readers see it.

    The row is written only when that changes, the lease often.
    """

    service = models.ForeignKey(Service, models.PROTECT, related_name="instances", db_index=False)
    instance_id = models.TextField(db_collation="C")
    host = models.TextField()
    port = models.IntegerField()
    scheme = models.TextField(default=Scheme.HTTP)
    zone = models.TextField(null=True)  # noqa: DJ001 (null: not stated)
    weight = models.IntegerField(default=100)
    tags = ArrayField(models.TextField(), default=list)
    metadata = models.JSONField(default=dict)
    reported_status = models.TextField(default=Status.UP)
    registered_at = models.DateTimeField(db_default=Now())
    registered_by = models.TextField()
    # At most six reported statuses are applied in the minute that began then; a further one waits for its end.
    pending_status = models.TextField(null=True)  # noqa: DJ001
    # As registered (`schemas.health.HealthCheck`), and what the checks have found so far; null without a check.
    health_check = models.JSONField(null=True)
    health = models.TextField(null=True)  # noqa: DJ001
    status_minute_at = models.DateTimeField(null=True)
    status_changes = models.IntegerField(default=0)

    objects = InstanceQuerySet.as_manager()

    class Meta:
        default_permissions = ("view",)
        permissions = [
            ("register_instance", "Can register instances of own services"),
            ("heartbeat_instance", "Can renew leases of own services"),
            ("deregister_instance", "Can deregister instances of own services"),
            ("operate_instance", "Can deregister or override any instance"),
            ("override_status", "Can override the status of own instances"),
            ("view_metrics", "Can read the metrics"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["service", "instance_id"], name="instance_unique_id"),
            models.CheckConstraint(condition=Q(port__gte=1, port__lte=65535), name="instance_port"),
            models.CheckConstraint(condition=Q(weight__gte=0, weight__lte=65535), name="instance_weight"),
            models.CheckConstraint(condition=Q(scheme__in=Scheme.values), name="instance_scheme"),
            models.CheckConstraint(condition=Q(reported_status__in=Status.values), name="instance_reported_status"),
            models.CheckConstraint(
                condition=Q(health__isnull=True) | Q(health__in=Health.values), name="instance_health"
            ),
            models.CheckConstraint(
                condition=Q(health__isnull=True, health_check__isnull=True)
                | Q(health__isnull=False, health_check__isnull=False),
                name="instance_health_of_checked",
            ),
        ]
        indexes = [
            models.Index(fields=["instance_id"], name="instance_by_id"),
            models.Index(
                fields=["status_minute_at"], name="instance_pending_status", condition=Q(pending_status__isnull=False)
            ),
            models.Index(fields=["id"], name="instance_checked", condition=Q(health_check__isnull=False)),
        ]

    def __str__(self) -> str:
        return self.instance_id

    @property
    def url(self) -> str:
        """The address as a URL, equal to the SQL expression `sql.URL`.

        An IPv6 address is in brackets (RFC 3986).
        """
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def judged_by(self) -> list[Judge]:
        """The judges of the instance, equal to the SQL expression `sql.JUDGED_BY`."""
        judges = {Judge.LEASE: self.lease.ttl_seconds is not None, Judge.HEALTH_CHECK: self.health_check is not None}
        return [judge for judge, judges_it in judges.items() if judges_it]


class Lease(models.Model):
    """The lease of an instance, written at every heartbeat.

    The table is narrow, its pages are half empty and its times have no index, so that every heartbeat is a HOT update.
    `beats` counts heartbeats in the current `epoch`; a lease without any is unproven. The deadline is not stored: it
    follows from `heartbeat_at`, `ttl_seconds` and `RegistryState.window_started_at`. `protected_by` is the rule of the
    protection that began at `protected_at`, or of the last one. `incarnation` is here and not in the instance, since a
    heartbeat reads the newest version only of the row that it locks.
    """

    instance = models.OneToOneField(Instance, on_delete=models.CASCADE, primary_key=True, related_name="lease")
    heartbeat_at = models.DateTimeField()
    # Null for a permanent instance, whose lease has no deadline.
    ttl_seconds = models.IntegerField(null=True)
    epoch = models.BigIntegerField()
    incarnation = models.TextField(null=True)  # noqa: DJ001 (null: not stated)
    beats = models.BigIntegerField(default=0)
    expired_at = models.DateTimeField(null=True)
    protected_at = models.DateTimeField(null=True)
    protected_by = models.TextField(null=True)  # noqa: DJ001 (null: never protected)
    # Null where heartbeats renew the lease. Where health checks do, whether the instance is critical: it expires only
    # then, so that a checker that is down, frozen or cut off lets none expire.
    check_failing = models.BooleanField(null=True)

    class Meta:
        default_permissions = ()
        constraints = [
            models.CheckConstraint(condition=Q(ttl_seconds__gte=5, ttl_seconds__lte=86400), name="lease_ttl_seconds"),
            models.CheckConstraint(condition=Q(beats__gte=0), name="lease_beats"),
            models.CheckConstraint(
                condition=Q(expired_at__isnull=True) | Q(protected_at__isnull=True), name="lease_one_state"
            ),
            models.CheckConstraint(
                condition=Q(protected_at__isnull=True) | Q(protected_by__isnull=False, protected_by__in=Rule.values),
                name="lease_protected_by_rule",
            ),
            models.CheckConstraint(
                condition=Q(ttl_seconds__isnull=False)
                | Q(expired_at__isnull=True, protected_at__isnull=True, check_failing__isnull=True),
                name="lease_permanent_is_live",
            ),
        ]

    @property
    def state(self) -> State:
        if self.expired_at:
            return State.EXPIRED
        return State.PROTECTED if self.protected_at else State.LIVE

    def __str__(self) -> str:
        return f"lease of {self.instance_id}"


class Override(models.Model):
    """A status that an operator or owner puts in place of the reported one.

    It belongs to a service and an instance id: the instance need not exist, and may be registered again.
    """

    service = models.ForeignKey(Service, models.PROTECT, related_name="overrides", db_index=False)
    instance_id = models.TextField(db_collation="C")
    status = models.TextField()
    reason = models.TextField()
    actor = models.TextField()
    until = models.DateTimeField(null=True)
    # An operator keeps an instance out in this way: its owners can neither change nor clear the override.
    by_operator = models.BooleanField(db_default=False)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        default_permissions = ("view",)
        constraints = [
            models.UniqueConstraint(fields=["service", "instance_id"], name="override_unique_instance"),
            models.CheckConstraint(condition=Q(status__in=Status.values), name="override_status"),
            models.CheckConstraint(condition=~Q(reason=""), name="override_has_reason"),
        ]
        indexes = [models.Index(fields=["until"], name="override_until", condition=Q(until__isnull=False))]

    def __str__(self) -> str:
        return f"{self.status} for {self.instance_id}"


class Reservation(models.Model):
    """The reserved name of a deleted service: only its last owners can claim it.

    It is reserved until `until`.
    """

    namespace = models.TextField(db_collation="C")
    name = models.TextField(db_collation="C")
    owners = ArrayField(models.TextField())
    until = models.DateTimeField()

    class Meta:
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(fields=["namespace", "name"], name="reservation_unique_name"),
            models.CheckConstraint(condition=Q(name=Lower("name")), name="reservation_name_in_lower_case"),
        ]

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name} until {self.until}"


class OwnerUsage(models.Model):
    """An upper bound of the instances and services of an owner (`manager.owner_usage`).

    `counted` is False when it may be too low.
    """

    owner = models.TextField(primary_key=True, db_collation="C")
    instances = models.BigIntegerField()
    services = models.BigIntegerField()
    counted = models.BooleanField()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return self.owner


class ChangeQuerySet(QuerySet["Change"]):
    def of_instance(self, instance: Instance) -> "ChangeQuerySet":
        """Return the changes of an instance, newest first as in the index.

        They include those of earlier instances with its id.
        """
        service = instance.service
        named = self.filter(namespace=service.namespace, service_name=service.name, instance_id=instance.instance_id)
        return named.order_by(F("id") * Value(-1))

    def before(self, pk: str) -> "ChangeQuerySet":
        """Return the changes with ids below the decimal number `pk`.

        Returns all of them when it is not an id.
        """
        if not (pk.isascii() and pk.isdecimal() and len(pk) < 19):
            return self
        return self.alias(newness=F("id") * Value(-1)).filter(newness__gt=-int(pk))


class Change(models.Model):
    """A change: one row of the append-only change log, with ids in commit order.

    It has no foreign keys, because nothing may be locked after the change lock.
    """

    mark = models.CharField(max_length=8)
    at = models.DateTimeField()
    kind = models.TextField()
    namespace = models.TextField(null=True, db_collation="C")  # noqa: DJ001 (null: `log_started`)
    service_name = models.TextField(null=True, db_collation="C")  # noqa: DJ001
    instance_id = models.TextField(null=True, db_collation="C")  # noqa: DJ001
    instance = models.JSONField(null=True)
    changed = ArrayField(models.TextField(), null=True)
    actor = models.TextField()
    reason = models.TextField(null=True)  # noqa: DJ001
    evidence = models.JSONField(null=True)

    objects = ChangeQuerySet.as_manager()

    class Meta:
        default_permissions = ("view",)
        constraints = [models.CheckConstraint(condition=Q(kind__in=ChangeKind.values), name="change_kind")]
        indexes = [
            # Newest first, by an expression: for the newest change of a quiet service by `id` PostgreSQL may read the
            # primary key backwards instead, through the changes of all other services.
            models.Index("namespace", "service_name", F("id") * Value(-1), name="change_by_service"),
            models.Index("namespace", "service_name", "instance_id", F("id") * Value(-1), name="change_by_instance"),
        ]

    def __str__(self) -> str:
        return f"{self.mark}-{self.pk} {self.kind}"


class RegistryState(models.Model):
    """The state of expiry, in one row.

    It has the observation window, the last sweep, the suspension and the limits exceeded lately. `observed_at` is
    when a web process last pulsed, `window_started_at` since when they have without a gap. A suspension
    (`expiry.fleet_suspension.Suspension`) lasts from `suspended_at` until `suspended_until` at most.
    """

    observed_at = models.DateTimeField(db_default=Now())
    window_started_at = models.DateTimeField(db_default=Now())
    window_reason = models.TextField(default="start")
    swept_at = models.DateTimeField(db_default=Now())
    suspended_at = models.DateTimeField(null=True)
    suspended_until = models.DateTimeField(null=True)
    suspension_budget_full_at = models.DateTimeField(null=True)
    # The state of the registry before this time cannot be read from the log any more.
    pruned_before = models.DateTimeField(null=True)
    # By TTL, the rule and the time in seconds of an `expiry.protection.ExceededLimit`.
    exceeded_limits = models.JSONField(db_default={})

    class Meta:
        default_permissions = ()
        constraints = [models.CheckConstraint(condition=Q(id=1), name="registry_state_one_row")]

    def __str__(self) -> str:
        return f"observed until {self.observed_at}"
