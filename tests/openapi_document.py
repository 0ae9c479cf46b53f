"""The OpenAPI document, for the tests of its operations and of its schemas."""

from collections.abc import Iterator
from functools import cache
from typing import Any

from app.about.openapi import build_document as build_document_of
from app.main import create_app
from app.settings import Settings

Json = dict[str, Any]


@cache
def build_document() -> Json:
    """Return the document of the routes, which is the published one if it is current."""
    return build_document_of(create_app(Settings.model_validate({"database_url": "postgresql://never-asked/"})))


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    """Yield each operation with its method and path, and with its responses resolved."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            responses = {
                status: document["components"]["responses"][response["$ref"].rpartition("/")[2]]
                if "$ref" in response
                else response
                for status, response in operation["responses"].items()
            }
            yield method, path, {**operation, "responses": responses}


def walk_objects(node: Any, pointer: str = "#") -> Iterator[tuple[str, Json]]:
    """Yield all objects inside `node`, each with its JSON pointer."""
    if isinstance(node, dict):
        yield pointer, node
        for key, value in node.items():
            yield from walk_objects(value, f"{pointer}/{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from walk_objects(value, f"{pointer}/{index}")
