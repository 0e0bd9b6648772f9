"""What an operator does in the admin to the rows selected: a page that says what will happen and asks why, then the
verb, with the operator as actor."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from service_registry import logs, manager
from service_registry.caller import Caller
from service_registry.choices import Status
from service_registry.exceptions import RegistryError
from service_registry.models import Instance, Override, Service, User
from service_registry.schemas import ARRAY_LIMIT, Deregistration, InstanceOverride, ServiceRelease
from service_registry.schemas.fields import NO_CONTROLS

logger = logging.getLogger(__name__)

# The stubs' class takes its model; Django's does not.
if TYPE_CHECKING:
    AnyAdmin = admin.ModelAdmin[Any]
else:
    AnyAdmin = admin.ModelAdmin

SHOWN = 100


class Removal(forms.Form):
    """Deregister instances."""

    title: ClassVar[str] = "Remove instances"
    consequence: ClassVar[str] = "They leave the list at once, and callers find them no more. Those that still run may "
    consequence += "register again: to keep one out, override its status."
    verb: ClassVar[str] = "remove"
    reason = forms.RegexField(NO_CONTROLS, max_length=512, help_text="Kept with the change.")

    def act(self, rows: Sequence[Any], caller: Caller) -> Sequence[object]:
        items = [Deregistration(**key_of(row)) for row in rows]
        return manager.deregister(items, caller, self.cleaned_data["reason"])


class StatusOverride(forms.Form):
    """Set a status over that of instances."""

    title: ClassVar[str] = "Override the status of instances"
    consequence: ClassVar[str] = (
        "The status stands over what they report, through heartbeats, registration and removal."
    )
    verb: ClassVar[str] = "override"
    status = forms.ChoiceField(choices=[(status, status) for status in Status.values], initial=Status.OUT_OF_SERVICE)
    until = forms.DateTimeField(required=False, help_text="UTC, as 2026-12-31 23:59; empty: until it is cleared.")
    reason = forms.RegexField(NO_CONTROLS, max_length=512, help_text="Kept with the change.")

    def act(self, rows: Sequence[Any], caller: Caller) -> Sequence[object]:
        return manager.override([InstanceOverride(**key_of(row), **self.cleaned_data) for row in rows], caller)


class Clearing(forms.Form):
    """Take overrides back."""

    title: ClassVar[str] = "Clear overrides"
    consequence: ClassVar[str] = "The instances have the status again that they report."
    verb: ClassVar[str] = "clear"
    reason = forms.RegexField(NO_CONTROLS, max_length=512, help_text="Kept with the change.")

    def act(self, rows: Sequence[Any], caller: Caller) -> Sequence[object]:
        return manager.override([InstanceOverride(**key_of(row), **self.cleaned_data) for row in rows], caller)


class Release(forms.Form):
    """Let go what services hold."""

    title: ClassVar[str] = "Release services"
    consequence: ClassVar[str] = (
        "What is held there past its deadline leaves the list with the next sweep, and for 15 minutes nobody is held."
    )
    verb: ClassVar[str] = "release"
    reason = forms.RegexField(NO_CONTROLS, max_length=512, help_text="Kept with the change.")

    def act(self, rows: Sequence[Any], caller: Caller) -> Sequence[object]:
        reason = self.cleaned_data["reason"]
        return manager.release(
            [ServiceRelease(namespace=row.namespace, name=row.name, reason=reason) for row in rows], caller
        )


Act = type[Removal] | type[StatusOverride] | type[Clearing] | type[Release]


def key_of(row: Instance | Override) -> dict[str, str]:
    service = row.service
    return {"namespace": service.namespace, "service_name": service.name, "instance_id": row.instance_id}


def operator(user: Any) -> Caller:
    """The caller that a signed-in operator is."""
    assert isinstance(user, User), "the admin lets nobody else in"
    granted = {name.partition(".")[2] for name in user.get_all_permissions() if name.startswith("service_registry.")}
    return Caller(user.actor, frozenset(user.groups.values_list("name", flat=True)), frozenset(granted))


def confirmed(model_admin: AnyAdmin, request: HttpRequest, queryset: QuerySet[Any], act: Act) -> HttpResponse | None:
    """Ask, on a page that lists what will happen; when answered with a reason, do it and say how it went."""
    form = act(request.POST) if "confirmed" in request.POST else act()
    if not form.is_valid():
        return ask(model_admin, request, queryset, form)
    caller = operator(request.user)
    outcomes = [outcome for rows in batches(queryset) for outcome in form.act(rows, caller)]
    tell(request, act.verb, caller, outcomes)
    failures = [outcome for outcome in outcomes if isinstance(outcome, RegistryError)]
    done = len(outcomes) - len(failures)
    model_admin.message_user(request, f"{done} of {len(outcomes)} done: {act.verb}.", messages.SUCCESS)
    for failure in sorted({str(failure) for failure in failures}):
        model_admin.message_user(request, failure, messages.ERROR)
    return None


def tell(request: HttpRequest, verb: str, caller: Caller, outcomes: Sequence[object]) -> None:
    """Log an action in a line of its own: that of its request says only that the admin was asked."""
    codes = Counter(outcome.code if isinstance(outcome, RegistryError) else "ok" for outcome in outcomes)
    fields = {"request_id": getattr(request, "request_id", None), "actor": caller.actor}
    logs.log_event(logger, logging.INFO, verb, fields | {"items": len(outcomes), "outcomes": codes})


def with_services(queryset: QuerySet[Any]) -> QuerySet[Any]:
    """The rows, with the service of each where they are not services themselves."""
    return queryset if queryset.model is Service else queryset.select_related("service")


def batches(queryset: QuerySet[Any]) -> Iterator[list[Any]]:
    rows = list(with_services(queryset))
    yield from (rows[start : start + ARRAY_LIMIT] for start in range(0, len(rows), ARRAY_LIMIT))


def ask(model_admin: AnyAdmin, request: HttpRequest, queryset: QuerySet[Any], form: forms.Form) -> HttpResponse:
    rows = with_services(queryset)
    context = {
        **model_admin.admin_site.each_context(request),
        "title": getattr(form, "title", ""),
        "form": form,
        "opts": model_admin.opts,
        "media": model_admin.media,
        "count": rows.count(),
        "rows": rows[:SHOWN],
        "more": max(rows.count() - SHOWN, 0),
        "action": request.POST["action"],
        "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
        "select_across": request.POST.get("select_across", "0"),
        "checkbox_name": ACTION_CHECKBOX_NAME,
    }
    return render(request, "admin/service_registry/confirm.html", context)
