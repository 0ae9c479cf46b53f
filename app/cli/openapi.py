"""`patients-api openapi`: print the OpenAPI document for client generators. The command needs no database."""

import argparse

from app.about.document import DOCUMENT_PATH

USER_ERRORS = ()


def run(arguments: argparse.Namespace) -> int:
    """Print the OpenAPI document as JSON, and return 0."""
    if arguments.rebuild:
        from pydantic import SecretStr  # noqa: PLC0415  # these imports take most of a second
        from pydantic_core import to_json  # noqa: PLC0415

        from app.about.openapi import build_document  # noqa: PLC0415
        from app.main import create_app  # noqa: PLC0415
        from app.settings import Settings  # noqa: PLC0415

        settings = Settings.model_validate({"database_url": SecretStr("postgresql://")})
        print(to_json(build_document(create_app(settings)), indent=2).decode())
    else:
        print(DOCUMENT_PATH.read_text(encoding="utf-8"), end="")
    return 0
