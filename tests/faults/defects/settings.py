"""The registry's settings with a seeded defect in SQL that is composed at import."""

import os

from registry_project.settings import *  # noqa: F403
from registry_project.settings import INSTALLED_APPS
from service_registry import sql

NAME = os.environ["FAULTS_DEFECT"]

if NAME == "no-window":
    sql.RENEWED_AT = "l.heartbeat_at"
    sql.DEADLINE = f"({sql.RENEWED_AT} + {sql.GRACE})"

# The other defects are in code that Django loads first.
INSTALLED_APPS = [*INSTALLED_APPS, "tests.faults.defects.late.Late"]
