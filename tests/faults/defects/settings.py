"""The registry's settings, with a mistake in what it is made of. SQL is text, so most mistakes are a replacement."""

import os

from registry_project.settings import *  # noqa: F403
from registry_project.settings import INSTALLED_APPS, MIDDLEWARE
from service_registry import sql

NAME = os.environ["FAULTS_DEFECT"]

if NAME == "no-window":
    sql.RENEWED_AT = "l.heartbeat_at"
    sql.DEADLINE = f"({sql.RENEWED_AT} + {sql.GRACE})"

if NAME == "failing-beats":
    MIDDLEWARE = [*MIDDLEWARE, "tests.faults.defects.failing.FailingBeats"]

# The others need what Django loads first.
INSTALLED_APPS = [*INSTALLED_APPS, "tests.faults.defects.late.Late"]
