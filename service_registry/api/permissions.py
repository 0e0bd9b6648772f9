"""Whether a caller may try an action at all. Ownership is decided in the verbs, item by item."""

from typing import Any

from rest_framework.exceptions import NotAuthenticated
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from service_registry.api.authentication import asking
from service_registry.exceptions import PermissionMissing


class ActionPermission(BasePermission):
    """Looks the view's action up in its table `allowed_to`."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Raises NotAuthenticated, or PermissionMissing with the permission's name."""
        if request.user is None:
            raise NotAuthenticated
        action = view.allowed_to.get(view.action)
        # A method without an action here is 405, by the view itself.
        missing = action.missing(asking(request).granted) if action else None
        if missing:
            raise PermissionMissing(missing)
        return True
