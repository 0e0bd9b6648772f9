"""Deny callers, and lift denials: operators cut off a subject or an OAuth client."""

import logging
from collections.abc import Iterable

from django.conf import settings
from django.db import IntegrityError
from django.db.models.functions import Now

from service_registry import logs
from service_registry.access_models import Denial
from service_registry.caller import Caller
from service_registry.database.transactions import write_transaction
from service_registry.exceptions import InvalidInput
from service_registry.schemas import CallerDenial

logger = logging.getLogger(__name__)


def deny(order: CallerDenial, caller: Caller) -> Denial | InvalidInput:
    """Deny a caller, and return the denial; InvalidInput when its end has passed.

    Locks nothing. Web processes apply it with their next look at the access rules. Several denials of one caller may
    be in force; each is lifted or ends by itself. The name may be an actor as the logs show it, `SUBJECT@ISSUER`.
    """
    issuer = settings.OIDC_ISSUER
    name = order.name.removesuffix(f"@{issuer}")
    fields = {"kind": order.kind, "issuer": issuer, "name": name, "reason": order.reason, "until": order.until}
    try:
        with write_transaction(lock_timeout="3s"):
            denial = Denial.objects.create(**fields, actor=caller.actor)
    except IntegrityError:  # denial_until; the schema has checked all else
        return InvalidInput.of_field("until", "time", "must be in the future")
    log("caller_denied", denial, caller, order.reason)
    return denial


def lift(denials: Iterable[Denial], caller: Caller, reason: str) -> list[Denial | InvalidInput]:
    """Lift denials; InvalidInput for one that has ended already.

    Locks their rows. Of two operators who lift the same one the second finds it ended.
    """
    return [lift_one(denial, caller, reason) for denial in denials]


def lift_one(denial: Denial, caller: Caller, reason: str) -> Denial | InvalidInput:
    with write_transaction(lock_timeout="3s"):
        row = Denial.objects.in_force().filter(pk=denial.pk)
        lifted = row.update(lifted_at=Now(), lifted_by=caller.actor, lift_reason=reason)
    if not lifted:
        return InvalidInput({}, f"The denial of {denial} has ended already.")
    log("denial_lifted", denial, caller, reason)
    return denial


def log(event: str, denial: Denial, caller: Caller, reason: str) -> None:
    until = denial.until.isoformat() if denial.until else None
    fields = {"actor": caller.actor, "denied": str(denial), "reason": reason, "until": until}
    logs.log_event(logger, logging.INFO, event, fields)
