"""Create and update the `User` of an operator from the claims of a login."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group, Permission
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.db.models import Q

from service_registry.access_models import User
from service_registry.identity.groups import read_groups
from service_registry.identity.principal import is_name

# The permissions that open the admin: those of operators, and those for Django's own tables. The permissions to read
# services and to register instances are for the API.
ADMIN_PERMISSIONS = Q(codename__in=["operate_instance", "manage_service", "view_change", "deny_caller"]) | ~Q(
    content_type__app_label="service_registry"
)


def sign_in_operator(claims: Mapping[str, Any]) -> User:
    """Return the user of a verified ID token, with groups and admin access set anew.

    The user is found by issuer and subject only: an e-mail address or user name may pass to another person, and a
    provider may let people choose theirs. A deactivated user is returned unchanged.

    1. Create the row if it is missing. Two first logins at the same time meet in the unique constraint and get one row.
    2. Lock the row, so that later logins at the same time update it one after the other.
    """
    identity = {"issuer": claims["iss"], "subject": claims["sub"]}
    with transaction.atomic():
        User.objects.get_or_create(
            **identity, defaults={"username": create_username(claims), "password": make_password(None)}
        )
        user = User.objects.select_for_update().get(**identity)
        if user.is_active:
            update_operator(user, claims)
    return user


def update_operator(user: User, claims: Mapping[str, Any]) -> None:
    """Replace groups, names and admin access; permissions of the user itself stay."""
    user.groups.set(Group.objects.filter(name__in=read_groups(claims, settings.OIDC_GROUP_CLAIMS)))
    user.email = read_email(claims)
    user.first_name = read_text(claims, "given_name", 150) or read_text(claims, "name", 150)
    user.last_name = read_text(claims, "family_name", 150)
    user.is_superuser = False
    user.is_staff = Permission.objects.filter(Q(group__user=user) | Q(user=user), ADMIN_PERMISSIONS).exists()
    user.save(update_fields=["email", "first_name", "last_name", "is_superuser", "is_staff"])


def read_email(claims: Mapping[str, Any]) -> str:
    """Return the e-mail address for display, if the admin's form would accept it."""
    address = read_text(claims, "email", 254)
    try:
        validate_email(address)
    except ValidationError:
        return ""
    return address


def read_text(claims: Mapping[str, Any], name: str, max_characters: int) -> str:
    value = claims.get(name)
    return value[:max_characters] if is_name(value) else ""


def create_username(claims: Mapping[str, Any]) -> str:
    """Return a readable and unique user name: the preferred one and a digest."""
    digest = hashlib.sha256(f"{claims['iss']}\n{claims['sub']}".encode()).hexdigest()[:16]
    preferred = re.sub(r"[^\w.@+-]", "", read_text(claims, "preferred_username", 100))
    return f"{preferred or 'operator'}-{digest}"
