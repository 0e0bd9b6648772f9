"""Pages of the admin: lists, the history of an instance, actions with a reason."""

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render

from service_registry.admin import actions
from service_registry.admin.base import ReadOnlyAdmin
from service_registry.choices import Health, Status
from service_registry.health.presence import read_presence
from service_registry.health_models import HealthStanding
from service_registry.models import Change, Instance, InstanceQuerySet, Override, Service

admin.site.site_header = admin.site.site_title = "Service Registry"
admin.site.index_title = "Operations"
CHANGES_PER_PAGE = 100


@admin.register(Service)
class ServiceAdmin(ReadOnlyAdmin):
    list_display = ("name", "namespace", "owners", "created_at")
    list_filter = ("namespace",)
    search_fields = ("name", "owners__icontains")
    ordering = ("namespace", "name")
    actions = ("release",)

    @admin.action(description="Release (end protection) with a reason", permissions=["operate"])
    def release(self, request: HttpRequest, queryset: QuerySet[Service]) -> HttpResponse | None:
        return actions.run_action(self, request, queryset, actions.ReleaseForm)


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("listed", "listed"), ("protected", "protected"), ("expired", "expired")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Instance]) -> QuerySet[Instance]:
        assert isinstance(queryset, InstanceQuerySet)
        states = {"listed": queryset.listed, "protected": queryset.protected, "expired": queryset.expired}
        return states.get(self.value() or "", queryset.all)()


class LeaseFilter(admin.SimpleListFilter):
    title = "lease"
    parameter_name = "lease"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("permanent", "permanent"), ("unjudged", "permanent, judged by nothing")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Instance]) -> QuerySet[Instance]:
        assert isinstance(queryset, InstanceQuerySet)
        leases = {"permanent": queryset.permanent, "unjudged": queryset.unjudged}
        return leases.get(self.value() or "", queryset.all)()


class StatusFilter(admin.SimpleListFilter):
    title = "reported status"
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(status, status) for status in Status.values]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Instance]) -> QuerySet[Instance]:
        return queryset.filter(reported_status=self.value()) if self.value() else queryset


class HealthFilter(admin.SimpleListFilter):
    title = "health"
    parameter_name = "health"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(health, health) for health in Health.values]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Instance]) -> QuerySet[Instance]:
        return queryset.filter(health=self.value()) if self.value() else queryset


@admin.register(Instance)
class InstanceAdmin(ReadOnlyAdmin):
    """Instances with their leases.

    Metadata and host names are hostile: they are shown as escaped text, not links.
    """

    list_display = ("instance_id", "service", "url", "reported_status", "health", "state", "ttl", "heartbeat_at")
    list_filter = (StateFilter, LeaseFilter, StatusFilter, HealthFilter, "zone", "service__namespace")
    search_fields = ("instance_id", "host", "service__name")
    list_select_related = ("service", "lease")
    ordering = ("service__namespace", "service__name", "instance_id")
    actions = ("override", "remove")
    fields = readonly_fields = (
        *("service", "instance_id", "url", "reported_status", "state", "ttl", "judged_by", "heartbeat_at"),
        *("incarnation", "health_check", "health", "last_result", "output"),
        *("zone", "weight", "tags", "metadata", "registered_at", "registered_by"),
    )
    audited = frozenset({"registered_by"})

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Return the fields. What a target answers is for operators alone."""
        fields = super().get_fields(request, obj)
        return [name for name in fields if name != "output" or self.has_operate_permission(request)]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the list, below a line on the checkers when something is wrong with them."""
        failure = read_presence().failure
        line = {"subtitle": f"Health checkers: {failure}."} if failure else {}
        return super().changelist_view(request, line | (extra_context or {}))

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Show the changes of the instance, newest first.

        They take the place of Django's own log of admin edits.
        """
        if not (self.has_view_permission(request) and request.user.has_perm("service_registry.view_change")):
            raise PermissionDenied
        instance = self.get_object(request, object_id)
        if instance is None:
            raise Http404
        rows = list(Change.objects.of_instance(instance).before(request.GET.get("before", ""))[: CHANGES_PER_PAGE + 1])
        context = {
            **self.admin_site.each_context(request),
            "title": f"History of {instance.service} {instance}",
            "opts": self.opts,
            "instance": instance,
            "changes": rows[:CHANGES_PER_PAGE],
            "older": rows[CHANGES_PER_PAGE - 1].pk if len(rows) > CHANGES_PER_PAGE else None,
        }
        return render(request, "admin/service_registry/instance/object_history.html", context)

    @admin.display(description="URL")
    def url(self, instance: Instance) -> str:
        return instance.url

    @admin.display(description="state")
    def state(self, instance: Instance) -> str:
        return instance.lease.state

    @admin.display(description="TTL")
    def ttl(self, instance: Instance) -> str:
        return "permanent" if instance.lease.ttl_seconds is None else f"{instance.lease.ttl_seconds} s"

    @admin.display(description="judged by")
    def judged_by(self, instance: Instance) -> str:
        return " and ".join(judge.label.lower() for judge in instance.judged_by) or "nothing"

    def read_standing(self, instance: Instance) -> HealthStanding | None:
        """Return the standing of the instance's process, once it has been checked."""
        return HealthStanding.objects.filter(
            pk=instance.pk, epoch=instance.lease.epoch, checked_at__isnull=False
        ).first()

    @admin.display(description="last result")
    def last_result(self, instance: Instance) -> str:
        """Return the last result of the instance's health check, and what the checks before it say."""
        standing = self.read_standing(instance)
        if standing is None:
            return self.get_empty_value_display()
        seconds = f"{1000 * (standing.seconds or 0):.0f} ms"
        parts = [f"{standing.level}: {standing.cause}, {seconds}, at {standing.checked_at:%Y-%m-%d %H:%M:%S} UTC"]
        parts += [f"{standing.failures} failures in a row"] if standing.failures else []
        parts += ["flapping"] if standing.flapping else []
        return "; ".join(parts)

    @admin.display(description="output of the last check")
    def output(self, instance: Instance) -> str:
        standing = self.read_standing(instance)
        return (standing and standing.output) or self.get_empty_value_display()

    @admin.display(description="last heartbeat (UTC)")
    def heartbeat_at(self, instance: Instance) -> str:
        return f"{instance.lease.heartbeat_at:%Y-%m-%d %H:%M:%S}"

    @admin.display(description="incarnation")
    def incarnation(self, instance: Instance) -> str:
        return instance.lease.incarnation or self.get_empty_value_display()

    @admin.action(description="Remove (deregister) with a reason", permissions=["operate"])
    def remove(self, request: HttpRequest, queryset: QuerySet[Instance]) -> HttpResponse | None:
        return actions.run_action(self, request, queryset, actions.RemoveForm)

    @admin.action(description="Override the status with a reason", permissions=["operate"])
    def override(self, request: HttpRequest, queryset: QuerySet[Instance]) -> HttpResponse | None:
        return actions.run_action(self, request, queryset, actions.OverrideForm)


@admin.register(Override)
class OverrideAdmin(ReadOnlyAdmin):
    list_display = ("instance_id", "service", "status", "reason", "actor", "until", "created_at")
    list_filter = ("status",)
    search_fields = ("instance_id", "service__name", "reason", "actor")
    list_select_related = ("service",)
    ordering = ("-created_at",)
    actions = ("clear",)
    fields = ("service", "instance_id", "status", "until", "created_at", "by_operator", "reason", "actor")
    audited = frozenset({"reason", "actor"})

    @admin.action(description="Clear with a reason", permissions=["operate"])
    def clear(self, request: HttpRequest, queryset: QuerySet[Override]) -> HttpResponse | None:
        return actions.run_action(self, request, queryset, actions.ClearOverrideForm)


@admin.register(Change)
class ChangeAdmin(ReadOnlyAdmin):
    """The change log, newest first, with actor, reason and evidence."""

    list_display = ("at", "kind", "namespace", "service_name", "instance_id", "reason", "actor")
    list_filter = ("kind",)
    search_fields = ("=service_name", "=instance_id", "actor")
    ordering = ("-id",)
