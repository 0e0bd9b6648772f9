"""DRF permission: whether a caller may try an action.

Ownership is decided by the operations, item by item.
"""

from typing import Any

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from service_registry.api.authentication import caller_of
from service_registry.exceptions import NotAuthenticated


class ActionPermission(BasePermission):
    """Look the view's action up in its table `allowed_to`."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Check that the caller's permissions allow the action, and return True.

        Raises NotAuthenticated, or PermissionMissing with the permission's name.
        """
        if request.user is None:
            raise NotAuthenticated
        action = view.allowed_to.get(view.action)
        if action:  # else the method is not allowed here, and the view answers 405
            action.require(caller_of(request).granted)
        return True
