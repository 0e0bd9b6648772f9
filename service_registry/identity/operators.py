"""Operators: rows of `User` for people of the OIDC provider, made anew from their claims at each login."""

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

from service_registry.identity.groups import groups_of
from service_registry.identity.principal import is_name
from service_registry.models import User

# What lets a person into the admin: a permission of operators, or one over Django's own tables. Reading services, or
# speaking for one of them, is for the API.
OPERATES = Q(codename__in=["operate_instance", "manage_service", "view_change"]) | ~Q(
    content_type__app_label="service_registry"
)


def signed_in(claims: Mapping[str, Any]) -> User:
    """The user of these claims (a verified ID token's), with the groups and the right to the admin that they give.

    Found by issuer and subject and nothing else: an e-mail or a user name may pass to another person, and a provider
    may let people choose theirs. A deactivated user is returned as it is. Two first logins at once meet in the unique
    constraint and get one row; later ones wait for each other on it.
    """
    identity = {"issuer": claims["iss"], "subject": claims["sub"]}
    with transaction.atomic():
        User.objects.get_or_create(**identity, defaults={"username": username(claims), "password": make_password(None)})
        user = User.objects.select_for_update().get(**identity)
        if user.is_active:
            give(user, claims)
    return user


def give(user: User, claims: Mapping[str, Any]) -> None:
    """What the claims say, and nothing that an earlier login or another hand gave beyond it but single permissions."""
    user.groups.set(Group.objects.filter(name__in=groups_of(claims, settings.OIDC_GROUP_CLAIMS)))
    user.email = email(claims)
    user.first_name = text(claims, "given_name", 150) or text(claims, "name", 150)
    user.last_name = text(claims, "family_name", 150)
    user.is_superuser = False
    user.is_staff = Permission.objects.filter(Q(group__user=user) | Q(user=user), OPERATES).exists()
    user.save(update_fields=["email", "first_name", "last_name", "is_superuser", "is_staff"])


def email(claims: Mapping[str, Any]) -> str:
    """For display alone, and only what the admin's own form would take."""
    address = text(claims, "email", 254)
    try:
        validate_email(address)
    except ValidationError:
        return ""
    return address


def text(claims: Mapping[str, Any], name: str, longest: int) -> str:
    value = claims.get(name)
    return value[:longest] if is_name(value) else ""


def username(claims: Mapping[str, Any]) -> str:
    """Readable, and never another's: what the person is called, and a digest of who it is."""
    digest = hashlib.sha256(f"{claims['iss']}\n{claims['sub']}".encode()).hexdigest()[:16]
    called = re.sub(r"[^\w.@+-]", "", text(claims, "preferred_username", 100))
    return f"{called or 'operator'}-{digest}"
