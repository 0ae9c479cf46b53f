"""`patients-api openapi`: print the OpenAPI document for client generators. The command needs no database."""

import argparse

from pydantic import SecretStr
from pydantic_core import to_json

from app.main import create_app
from app.settings import InvalidSettingsError, Settings

USER_ERRORS = (InvalidSettingsError,)


def run(_: argparse.Namespace) -> int:
    """Print the OpenAPI document as JSON, and return 0."""
    settings = Settings.load().model_copy(update={"database_url": SecretStr("postgresql://")})
    print(to_json(create_app(settings).openapi(), indent=2).decode())
    return 0
