"""Django's settings: what the requests need, and nothing that would only cost time."""

import os
from urllib.parse import parse_qs, urlsplit

_url = urlsplit(os.environ["DATABASE_URL"])
_query = parse_qs(_url.query)

POOL_SIZE = 4
"""Connections of each worker process, one for each of its threads."""

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _url.path.removeprefix("/"),
        "USER": _url.username,
        "PASSWORD": _url.password,
        "HOST": _url.hostname or _query["host"][0],
        "PORT": _url.port or _query["port"][0],
        "OPTIONS": {
            "pool": {"min_size": POOL_SIZE, "max_size": POOL_SIZE},
            "options": "-c jit=off",  # as in the service
        },
    }
}
INSTALLED_APPS = ["rest_framework", "benchmarks.peers.drf"]
MIDDLEWARE: list[str] = []
ROOT_URLCONF = "benchmarks.peers.drf.urls"
ALLOWED_HOSTS = ["127.0.0.1"]
SECRET_KEY = "signs nothing here"  # noqa: S105
DEBUG = False
USE_TZ = True
TIME_ZONE = "UTC"
REST_FRAMEWORK = {
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "UNAUTHENTICATED_USER": None,
}
