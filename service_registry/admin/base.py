"""Base classes of the admin's pages, whose lists take only their own filters from an address."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.exceptions import DisallowedModelAdminLookup
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import ValidationError
from django.db import DataError, transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import SimpleTemplateResponse

from service_registry.database.transactions import read_transaction

# The class of the stubs is generic; Django's class is not.
if TYPE_CHECKING:
    AnyAdmin = admin.ModelAdmin[Any]
else:
    AnyAdmin = admin.ModelAdmin


class RegistryChangeList(ChangeList):
    """A list of rows, filtered by the filters of its page alone.

    Django's takes every lookup on a field from the address besides: `password__startswith` would tell a password's hash
    bit by bit, and `mark__regex` runs any pattern on all rows. A value that cannot be used finds no rows.
    """

    def get_filters(self, request: HttpRequest) -> Any:
        """Return the filters. Raises DisallowedModelAdminLookup, a 400, for a parameter that none of them takes."""
        try:
            found = super().get_filters(request)
        except IncorrectLookupParameters as error:  # not even a field
            raise DisallowedModelAdminLookup(str(error)) from error
        undeclared = found[2]
        if undeclared:
            raise DisallowedModelAdminLookup(f"not a filter of this page: {', '.join(undeclared)}")
        return found

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        try:
            return super().get_queryset(request, exclude_parameters)
        except IncorrectLookupParameters:
            self.clear_all_filters_qs = self.get_query_string(remove=self.get_filters_params())
            return self.root_queryset.none()

    def get_results(self, request: HttpRequest) -> None:
        """Read the rows of this page; none for a value that PostgreSQL refuses, such as a NUL."""
        try:
            with transaction.atomic():
                super().get_results(request)
                len(self.result_list)  # reads them now, and not in the template
        except DataError:
            self.queryset = self.root_queryset.none()
            super().get_results(request)


class RegistryAdmin(AnyAdmin):
    """Pages of rows whose addresses and forms may contain anything."""

    def get_changelist(self, request: HttpRequest, **_options: Any) -> type[ChangeList]:
        return RegistryChangeList

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the list, with a limit on the time of its searches and filters."""
        if request.method == "POST":  # an action, which has a transaction of its own
            return super().changelist_view(request, extra_context)
        with read_transaction():
            response = super().changelist_view(request, extra_context)
            return response.render() if isinstance(response, SimpleTemplateResponse) else response

    # The stubs have an argument that Django 5.2 has not.
    def response_action(  # type: ignore[override]
        self, request: HttpRequest, queryset: QuerySet[Any]
    ) -> HttpResponse | None:
        """Run the chosen action, unless a selected id cannot be one."""
        try:
            for selected in request.POST.getlist(ACTION_CHECKBOX_NAME):
                self.opts.pk.to_python(selected)
        except ValidationError:
            self.message_user(request, "There are no such rows.", messages.WARNING)
            return None
        return super().response_action(request, queryset)


class ReadOnlyAdmin(RegistryAdmin):
    """Pages without forms: only the operations of `manager` write rows.

    The actions call them.

    Attributes:
        audited: fields that say who acted, or why. As in the API they are for users with `view_change` alone: shown in
            lists and on pages, and searched.
    """

    audited: ClassVar[frozenset[str]] = frozenset()
    list_per_page = 50
    show_full_result_count = False

    def visible(self, request: HttpRequest, names: Sequence[Any]) -> list[Any]:
        hidden = () if request.user.has_perm("service_registry.view_change") else self.audited
        return [name for name in names if name not in hidden]

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        return self.visible(request, super().get_list_display(request))

    def get_search_fields(self, request: HttpRequest) -> list[Any]:
        return self.visible(request, super().get_search_fields(request))

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        return self.visible(request, super().get_fields(request, obj))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("service_registry.operate_instance")
