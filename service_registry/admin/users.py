"""Pages of users and groups: those of Django, with the lists of the registry's admin."""

from typing import TYPE_CHECKING

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group

from service_registry.access_models import User
from service_registry.admin.base import RegistryAdmin

# The class of the stubs is generic; Django's class is not.
if TYPE_CHECKING:
    DjangoUserAdmin = UserAdmin[User]
else:
    DjangoUserAdmin = UserAdmin


@admin.register(User)
class OperatorAdmin(RegistryAdmin, DjangoUserAdmin):
    pass


admin.site.unregister(Group)


@admin.register(Group)
class RoleAdmin(RegistryAdmin, GroupAdmin):
    pass
