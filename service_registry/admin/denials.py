"""Pages of the denials: deny a caller, list denials, lift them with a reason."""

from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import AdminTextInputWidget
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from service_registry import manager
from service_registry.access_models import Denial, DenialQuerySet
from service_registry.admin import actions
from service_registry.admin.base import ReadOnlyAdmin
from service_registry.exceptions import RegistryError
from service_registry.schemas import CallerDenial

# The class of the stubs is generic; Django's class is not.
if TYPE_CHECKING:
    AnyModelForm = forms.ModelForm[Denial]
else:
    AnyModelForm = forms.ModelForm


class DenialForm(AnyModelForm):
    """The form that denies a caller, as soon as it is valid."""

    current_user: ClassVar[Any]
    name = forms.CharField(
        widget=AdminTextInputWidget,
        max_length=512,
        help_text="The subject, or SUBJECT@ISSUER as in the logs; or the client's id.",
    )
    reason = actions.ReasonField(help_text="Kept with the denial.")
    until = forms.DateTimeField(required=False, help_text="UTC, e.g. 2026-12-31 23:59. Empty: until it is lifted.")

    class Meta:
        model = Denial
        fields = ("kind", "name", "reason", "until")

    def clean(self) -> None:
        """Deny the caller once all fields are valid: the database decides whether the end has passed."""
        super().clean()
        if self.errors:
            return
        outcome = manager.deny(CallerDenial(**self.cleaned_data), actions.caller_of(self.current_user))
        if isinstance(outcome, RegistryError):
            self.add_error("until", "The end must be in the future.")
        else:
            self.instance = outcome


class InForceFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("in_force", "in force")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Denial]) -> QuerySet[Denial]:
        assert isinstance(queryset, DenialQuerySet)
        return queryset.in_force() if self.value() == "in_force" else queryset


@admin.register(Denial)
class DenialAdmin(ReadOnlyAdmin):
    """Denials of callers, ended ones too."""

    list_display = ("name", "kind", "reason", "until", "lifted_at", "actor", "created_at")
    list_filter = (InForceFilter, "kind")
    search_fields = ("name", "reason", "actor")
    ordering = ("-id",)
    actions = ("lift",)
    form = DenialForm
    fields = ("kind", "name", "reason", "until")
    added_later = ("created_at", "actor", "lifted_at", "lifted_by", "lift_reason")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_deny_permission(request)

    def has_deny_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("service_registry.deny_caller")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        return [*super().get_fields(request, obj), *(self.added_later if obj else ())]

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        return {"kind": "subject", **super().get_changeform_initial_data(request)}

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Return a form class of this request alone, which knows its user."""
        form: Any = super().get_form(request, obj, change, **kwargs)
        form.current_user = request.user
        return form

    def save_model(self, request: HttpRequest, obj: Denial, form: Any, change: bool) -> None:
        """Do nothing: the form has stored the denial."""

    @admin.action(description="Lift with a reason", permissions=["deny"])
    def lift(self, request: HttpRequest, queryset: QuerySet[Denial]) -> HttpResponse | None:
        return actions.run_action(self, request, queryset, actions.LiftForm)
