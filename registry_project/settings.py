"""All settings of the registry, as docs/settings.md explains them.

Each is an environment variable of the same name. This module only reads values; `service_registry.checks` finds those
that are wrong.
"""

import os
from typing import Any

from registry_project import env
from service_registry.database.connection import CONNECT_SECONDS

BASE_DIR = env.BASE_DIR
DEBUG = env.flag("DEBUG", default=False)
SECRET_KEY = env.text("SECRET_KEY")
ALLOWED_HOSTS = env.text_list("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]" if DEBUG else "")
REGISTRY_DATA_DIR = env.data_directory()

# --- Identity -------------------------------------------------------------------------------------------------------

OIDC_ISSUER = env.text("OIDC_ISSUER")
OIDC_AUDIENCE = env.text("OIDC_AUDIENCE", "service-registry" if DEBUG else "")
OIDC_JWKS_URI = env.text("OIDC_JWKS_URI")
OIDC_GROUP_CLAIMS = env.text_list("OIDC_GROUP_CLAIMS", "groups,realm_access.roles")
OIDC_ALGORITHMS = env.text_list("OIDC_ALGORITHMS", "RS256,ES256,PS256,EdDSA")
OIDC_LEEWAY_SECONDS = env.integer("OIDC_LEEWAY_SECONDS", 30, 0, 300)
OIDC_KEYS_MAX_AGE_SECONDS = env.integer("OIDC_KEYS_MAX_AGE_SECONDS", 86400, 300, 604800)

OIDC_RP_CLIENT_ID = env.text("OIDC_RP_CLIENT_ID", "service-registry-admin" if DEBUG else "")
OIDC_RP_CLIENT_SECRET = env.text("OIDC_RP_CLIENT_SECRET")
OIDC_RP_SCOPES = "openid profile email"
OIDC_STORE_ACCESS_TOKEN = False
OIDC_STORE_ID_TOKEN = False

AUTH_USER_MODEL = "service_registry.User"
# Operators sign in at the OIDC provider. Local users with a password exist for development, and for as long as an
# operator allows them, such as while the provider is down.
REGISTRY_PASSWORD_LOGIN = env.flag("REGISTRY_PASSWORD_LOGIN", default=DEBUG)
AUTHENTICATION_BACKENDS = ["service_registry.identity.admin_login.AdminLoginBackend"]
if REGISTRY_PASSWORD_LOGIN:
    AUTHENTICATION_BACKENDS.append("service_registry.identity.login_limits.PasswordBackend")
# Groups are read at login: one that the provider removes has no effect after that time.
REGISTRY_ADMIN_SESSION_SECONDS = env.integer("REGISTRY_ADMIN_SESSION_SECONDS", 36_000, 300, 86_400)
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"
LOGOUT_REDIRECT_URL = "admin:login"

# --- The registry ---------------------------------------------------------------------------------------------------

REGISTRY_IGNORED_GROUPS = env.text_list("REGISTRY_IGNORED_GROUPS", "offline_access,uma_authorization,default-roles-*")
REGISTRY_DEFAULT_TTL_SECONDS = env.integer("REGISTRY_DEFAULT_TTL_SECONDS", 30, 5, 86400)
REGISTRY_SWEEP_INTERVAL_SECONDS = env.integer("REGISTRY_SWEEP_INTERVAL_SECONDS", 2, 1, 60)
REGISTRY_RETENTION_SECONDS = env.integer("REGISTRY_RETENTION_SECONDS", 600, 1, 2592000)
REGISTRY_SILENCE_MAX_SECONDS = env.integer("REGISTRY_SILENCE_MAX_SECONDS", 3600, 0, 86400)
REGISTRY_PROTECTION_FRACTION = env.fraction("REGISTRY_PROTECTION_FRACTION", 0.15)
REGISTRY_PROTECTION_MINIMUM = env.integer("REGISTRY_PROTECTION_MINIMUM", 5, 1, 1_000_000)
REGISTRY_PROTECTION_MAX_SECONDS = env.integer("REGISTRY_PROTECTION_MAX_SECONDS", 900, 0, 86400)
REGISTRY_SERVICE_PROTECTION_FRACTION = env.fraction("REGISTRY_SERVICE_PROTECTION_FRACTION", 0.5)
REGISTRY_SERVICE_PROTECTION_MAX_SECONDS = env.integer("REGISTRY_SERVICE_PROTECTION_MAX_SECONDS", 120, 0, 86400)
REGISTRY_FIRST_REGISTRATION = env.text("REGISTRY_FIRST_REGISTRATION", "claim", ("claim", "provisioned"))
REGISTRY_NAME_RESERVATION_DAYS = env.integer("REGISTRY_NAME_RESERVATION_DAYS", 30, 0, 3650)
REGISTRY_EMPTY_SERVICE_DAYS = env.integer("REGISTRY_EMPTY_SERVICE_DAYS", 7, 0, 3650)
REGISTRY_CHANGE_RETENTION_DAYS = env.integer("REGISTRY_CHANGE_RETENTION_DAYS", 30, 1, 3650)
REGISTRY_SECRET_METADATA = env.text("REGISTRY_SECRET_METADATA", "refuse", ("refuse", "redact", "allow"))
REGISTRY_MAX_INSTANCES_PER_OWNER = env.integer("REGISTRY_MAX_INSTANCES_PER_OWNER", 10_000, 1, 10_000_000)
REGISTRY_MAX_SERVICES_PER_OWNER = env.integer("REGISTRY_MAX_SERVICES_PER_OWNER", 1000, 1, 1_000_000)
REGISTRY_MAX_OVERRIDES_WITHOUT_INSTANCE = env.integer("REGISTRY_MAX_OVERRIDES_WITHOUT_INSTANCE", 1000, 0, 1_000_000)

# --- Django ---------------------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    # Django's auth app creates the permissions after a migration, before the registry's own receiver grants them. The
    # registry's templates override those of the admin.
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "service_registry",
    "django.contrib.admin",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
]

MIDDLEWARE = [
    "service_registry.api.middleware.RegistryMiddleware",
    "service_registry.api.middleware.CompressionMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "service_registry.api.middleware.SessionCookieMiddleware",
    "service_registry.api.middleware.HostMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "service_registry.api.middleware.DeniedSessionMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "registry_project.urls"
WSGI_APPLICATION = "registry_project.wsgi.application"

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "service_registry.identity.admin_login.add_password_login",
            ]
        },
    }
]


# Django's backend on connections with deadlines; it also counts statements and errors, and measures statements.
ENGINE = "service_registry.database"
# The address of the same database without the transaction pooler: a pooler does not deliver NOTIFY.
DATABASE_DIRECT_URL = env.postgresql_url("DATABASE_DIRECT_URL")
# A transaction pooler keeps no session state, and not every one keeps prepared statements.
DATABASE_POOLED = env.flag("DATABASE_POOLED", default=bool(DATABASE_DIRECT_URL))
OPTIONS = {
    # Without it a connection attempt has no bound.
    "connect_timeout": CONNECT_SECONDS,
    "application_name": "service-registry",
    # A server in recovery, as a demoted primary is, is refused.
    "target_session_attrs": "primary",
    # The number of executions before a statement is prepared; None: never.
    "prepare_threshold": None if DATABASE_POOLED else 0,
}
DATABASES = {
    "default": env.database(
        "DATABASE_URL",
        OPTIONS,
        ENGINE=ENGINE,
        CONN_MAX_AGE=600,
        CONN_HEALTH_CHECKS=True,
        DISABLE_SERVER_SIDE_CURSORS=True,
    )
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-us"
USE_I18N = False

STATIC_URL = "/static/"
# The web process serves the files from where they are, without collectstatic.
WHITENOISE_USE_FINDERS = True

# The size limit of a request body in bytes, for the ASGI application and for the parser.
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024

# TLS ends at the proxy in front. A redirect to https would only hide that a bearer token was sent in clear text.
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not DEBUG
SECURE_HSTS_SECONDS = 0 if DEBUG else 31_536_000
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W008", "security.W021"]

# --- DRF ------------------------------------------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["service_registry.api.authentication.BearerAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["service_registry.api.permissions.ActionPermission"],
    "DEFAULT_PARSER_CLASSES": ["service_registry.api.parser.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["service_registry.api.renderer.RegistryJSONRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "service_registry.api.renderer.IgnoreAccept",
    "DEFAULT_SCHEMA_CLASS": "service_registry.api.openapi.RegistrySchema",
    "DEFAULT_THROTTLE_CLASSES": [],
    "DEFAULT_PAGINATION_CLASS": None,
    "DEFAULT_FILTER_BACKENDS": [],
    "EXCEPTION_HANDLER": "service_registry.api.errors.exception_handler",
    "UNAUTHENTICATED_USER": None,
    "UNAUTHENTICATED_TOKEN": None,
    "URL_FORMAT_OVERRIDE": None,
}

SPECTACULAR_SETTINGS = {
    "TITLE": "Service Registry",
    "DESCRIPTION": "Reads of 1 KiB and more are compressed with gzip where Accept-Encoding allows it.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SERVE_INCLUDE_SCHEMA": False,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "service_registry.api.openapi.remove_trailing_slashes",
    ],
    "ENUM_NAME_OVERRIDES": {
        name: f"service_registry.choices.{name}.values" for name in ("Status", "Scheme", "State", "ChangeKind")
    },
}

# --- Celery ---------------------------------------------------------------------------------------------------------

CELERY_BROKER_URL = env.text("CELERY_BROKER_URL", "memory://")
CELERY_TASK_IGNORE_RESULT = True
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULE = {
    "sweep": {
        "task": "service_registry.tasks.sweep",
        "schedule": float(REGISTRY_SWEEP_INTERVAL_SECONDS),
        "options": {"expires": float(REGISTRY_SWEEP_INTERVAL_SECONDS)},
    },
}

# --- Logs -----------------------------------------------------------------------------------------------------------

REGISTRY_LOG_HEARTBEATS = env.text("REGISTRY_LOG_HEARTBEATS", "changes", ("errors", "changes", "all"))
REGISTRY_LOG_READS = env.text("REGISTRY_LOG_READS", "errors", ("errors", "all"))
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"registry": {"()": "service_registry.logs.choose_formatter"}},
    "filters": {
        "refusals": {"()": "service_registry.logs.RefusalLimit"},
        "has_traceback": {"()": "service_registry.logs.HasTraceback"},
    },
    "handlers": {
        "stderr": {"()": "service_registry.logs.StderrHandler", "formatter": "registry", "filters": ["refusals"]},
        "nowhere": {"class": "logging.NullHandler"},
    },
    "root": {"handlers": ["stderr"], "level": "INFO"},
    "loggers": {
        **{name: {"handlers": [], "propagate": True} for name in ("django", "uvicorn", "uvicorn.error")},
        # The request log has these events already, without the query, which may contain metadata.
        "django.request": {"filters": ["has_traceback"]},
        # Anyone can cause these tracebacks, with a thousand parameters. A failed CSRF check is a warning.
        "django.security": {"handlers": ["nowhere"], "propagate": False},
        "django.security.csrf": {"handlers": ["stderr"], "propagate": False},
        **{name: {"handlers": [], "propagate": True, "level": "ERROR"} for name in ("django.server", "uvicorn.access")},
        # It logs every sweep at INFO.
        "celery": {"level": "WARNING"},
        # It warns that an in-memory broker has no host.
        "kombu.connection": {"level": "ERROR"},
    },
}

# --- Metrics --------------------------------------------------------------------------------------------------------

REGISTRY_METRICS_PUBLIC = env.flag("REGISTRY_METRICS_PUBLIC", default=False)
PROMETHEUS_LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
# The Prometheus library reads this variable from the environment at its first import.
PROMETHEUS_MULTIPROC_DIR = env.new_directory("PROMETHEUS_MULTIPROC_DIR")
if not PROMETHEUS_MULTIPROC_DIR:
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)

# --- Health checks --------------------------------------------------------------------------------------------------

REGISTRY_HEALTH_NETWORKS = env.network_list("REGISTRY_HEALTH_NETWORKS")
REGISTRY_HEALTH_CA_FILE = env.text("REGISTRY_HEALTH_CA_FILE")
# Where web processes listen: never checked on the machine of a checker.
REGISTRY_PORT = env.integer("REGISTRY_PORT", 8000, 1, 65535)

# --- Processes ------------------------------------------------------------------------------------------------------

REGISTRY_KEEP_ALIVE_SECONDS = env.integer("REGISTRY_KEEP_ALIVE_SECONDS", 75, 1, 3600)
REGISTRY_MAX_CONNECTIONS = env.integer("REGISTRY_MAX_CONNECTIONS", 6000, 100, 1_000_000)
REGISTRY_MAX_CONNECTIONS_PER_ADDRESS = env.integer("REGISTRY_MAX_CONNECTIONS_PER_ADDRESS", 2000, 0, 1_000_000)
WEB_THREADS = env.integer("WEB_THREADS", 2, 1, 64)
REGISTRY_MAX_SHARE_PER_CALLER = env.fraction("REGISTRY_MAX_SHARE_PER_CALLER", 0.5)
