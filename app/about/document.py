"""The OpenAPI document as a file, which `make openapi` builds from the routes.

FastAPI would build the document at the first request for it, which takes a third of a second of CPU time, in which a
worker answers no other request. A test requires that the file is current.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

DOCUMENT_PATH = Path(__file__).with_name("openapi.json")


@cache
def read_document() -> dict[str, Any]:
    """Return the document that the service publishes."""
    document: dict[str, Any] = json.loads(DOCUMENT_PATH.read_bytes())
    return document
