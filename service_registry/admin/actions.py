"""Admin actions on selected rows: confirm, give a reason, run an operation.

The operation runs as the signed-in user.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

from django import forms
from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.widgets import AdminTextInputWidget
from django.core import signing
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from pydantic import TypeAdapter, ValidationError

from service_registry import logs, manager
from service_registry.access_models import User
from service_registry.admin.base import AnyAdmin
from service_registry.admin.shown_rows import read_rows, sign_rows
from service_registry.caller import Caller
from service_registry.choices import Status
from service_registry.exceptions import RegistryError
from service_registry.models import Instance, Override
from service_registry.schemas import ARRAY_LIMIT, Deregistration, InstanceOverride, Reason, ServiceRelease

logger = logging.getLogger(__name__)

NOT_THIS_PAGE = "The page was not made for this action: select the rows again."


class ReasonField(forms.CharField):
    """A reason as `schemas.Reason` allows it."""

    widget = AdminTextInputWidget

    def validate(self, value: Any) -> None:
        super().validate(value)
        try:
            TypeAdapter(Reason).validate_python(value)
        except ValidationError as error:
            raise forms.ValidationError("Give 1 to 512 characters on one line.") from error


class ActionForm(forms.Form):
    """The page of an action: its effect, its fields and the operation that it calls.

    The log names the operation.
    """

    title: ClassVar[str]
    effect: ClassVar[str]
    operation: ClassVar[str]
    reason = ReasonField(help_text="Stored with the change.")

    def apply(self, rows: Sequence[Any], caller: Caller) -> Sequence[object]:
        """Run the operation on at most ARRAY_LIMIT rows, and return an outcome for each."""
        raise NotImplementedError


class RemoveForm(ActionForm):
    title = "Remove instances"
    effect = (
        "The instances are deregistered and leave the list at once. An instance that still runs may register again; "
        "to keep it away from traffic, override its status instead."
    )
    operation = "remove"

    def apply(self, rows: Sequence[Any], caller: Caller) -> Sequence[object]:
        # The epoch refuses an instance that has registered anew since the row was read.
        items = [Deregistration(**instance_key(row), epoch=row.lease.epoch) for row in rows]
        return manager.deregister(items, caller, self.cleaned_data["reason"])


class OverrideForm(ActionForm):
    title = "Override the status of instances"
    effect = (
        "The override replaces the status that the instances report. It stays in force through heartbeats, new "
        "registrations and removal."
    )
    operation = "override"
    field_order = ("status", "until", "reason")
    status = forms.ChoiceField(choices=[(status, status) for status in Status.values], initial=Status.OUT_OF_SERVICE)
    until = forms.DateTimeField(required=False, help_text="UTC, e.g. 2026-12-31 23:59. Empty: until it is cleared.")

    def apply(self, rows: Sequence[Any], caller: Caller) -> Sequence[object]:
        return manager.override([InstanceOverride(**instance_key(row), **self.cleaned_data) for row in rows], caller)


class ClearOverrideForm(ActionForm):
    title = "Clear overrides"
    effect = "The instances have the status again that they report."
    operation = "clear_override"

    def apply(self, rows: Sequence[Any], caller: Caller) -> Sequence[object]:
        return manager.override([InstanceOverride(**instance_key(row), **self.cleaned_data) for row in rows], caller)


class LiftForm(ActionForm):
    title = "Lift denials"
    effect = "The callers may use the registry again within seconds, unless another denial of them is in force."
    operation = "lift_denial"

    def apply(self, rows: Sequence[Any], caller: Caller) -> Sequence[object]:
        return manager.lift(rows, caller, self.cleaned_data["reason"])


class ReleaseForm(ActionForm):
    title = "Release services"
    effect = (
        "Protected instances of the services expire with the next sweep, and for 15 minutes no instance there becomes "
        "protected."
    )
    operation = "release"

    def apply(self, rows: Sequence[Any], caller: Caller) -> Sequence[object]:
        orders = [ServiceRelease(namespace=row.namespace, name=row.name, **self.cleaned_data) for row in rows]
        return manager.release(orders, caller)


def instance_key(row: Instance | Override) -> dict[str, str]:
    service = row.service
    return {"namespace": service.namespace, "service_name": service.name, "instance_id": row.instance_id}


def caller_of(user: Any) -> Caller:
    """Return the caller for a signed-in user, with that user's permissions and groups."""
    assert isinstance(user, User), "the admin requires a signed-in user"
    granted = {name.partition(".")[2] for name in user.get_all_permissions() if name.startswith("service_registry.")}
    return Caller(user.actor, frozenset(user.groups.values_list("name", flat=True)), frozenset(granted))


def run_action(
    model_admin: AnyAdmin, request: HttpRequest, queryset: QuerySet[Any], form_class: type[ActionForm]
) -> HttpResponse | None:
    """Show the confirmation page, or run the operation on the rows shown there when it was submitted.

    The operation runs only with valid fields, and its outcomes are reported.
    """
    form = form_class(request.POST) if "confirmed" in request.POST else form_class()
    rows = choose_rows(model_admin, request, queryset, form)
    if not rows:
        return None
    if not form.is_valid():
        return render_confirmation(model_admin, request, rows, form)
    caller = caller_of(request.user)
    outcomes = form.apply(rows, caller)
    log_action(request, form, caller, outcomes)
    refusals = [outcome for outcome in outcomes if isinstance(outcome, RegistryError)]
    done = len(outcomes) - len(refusals)
    level = messages.SUCCESS if done else messages.WARNING
    model_admin.message_user(request, f"{form.title}: {done} of {len(outcomes)} done.", level)
    for refusal in sorted({str(refusal) for refusal in refusals}):
        model_admin.message_user(request, refusal, messages.ERROR)
    return None


def choose_rows(
    model_admin: AnyAdmin, request: HttpRequest, queryset: QuerySet[Any], form: ActionForm
) -> Sequence[Any]:
    """Return the selected rows, or those that the confirmation page showed and that are as they were.

    A message says why rows are left out.
    """
    if not form.is_bound:
        selected = list(queryset[: ARRAY_LIMIT + 1])
        if len(selected) > ARRAY_LIMIT:
            model_admin.message_user(request, f"Select at most {ARRAY_LIMIT:,} rows.", messages.ERROR)
            return ()
        return selected
    every, related = model_admin.get_queryset(request), model_admin.list_select_related
    if not isinstance(related, bool):
        every = every.select_related(*related)
    try:
        rows, changed = read_rows(request.POST.get("shown", ""), purpose_of(request, form), every)
    except signing.BadSignature:
        model_admin.message_user(request, NOT_THIS_PAGE, messages.ERROR)
        return ()
    if changed:
        message = f"{form.title}: {changed} left alone, changed or ended since the page was shown."
        model_admin.message_user(request, message, messages.WARNING)
    return rows


def purpose_of(request: HttpRequest, form: ActionForm) -> str:
    return f"{form.operation} by {request.user.pk}"


def log_action(request: HttpRequest, form: ActionForm, caller: Caller, outcomes: Sequence[object]) -> None:
    """Log the outcomes of an action, besides the line of its request.

    The line of the request has only the status of the page.
    """
    codes = Counter(outcome.code if isinstance(outcome, RegistryError) else "ok" for outcome in outcomes)
    fields = {"request_id": logs.request_id_of(request), "actor": caller.actor}
    logs.log_event(logger, logging.INFO, form.operation, fields | {"items": len(outcomes), "outcomes": codes})


def render_confirmation(
    model_admin: AnyAdmin, request: HttpRequest, rows: Sequence[Any], form: ActionForm
) -> HttpResponse:
    context = {
        **model_admin.admin_site.each_context(request),
        "title": form.title,
        "form": form,
        "opts": model_admin.opts,
        "media": model_admin.media,
        "rows": rows,
        "shown": sign_rows(rows, purpose_of(request, form)),
        "action": request.POST["action"],
        "checkbox_name": ACTION_CHECKBOX_NAME,
    }
    return render(request, "admin/service_registry/confirm.html", context)
