"""The table in CONTRIBUTING.md that leads from an endpoint to its tests."""

import json
import re

from tests.doc_commands import REPOSITORY_ROOT

TABLE_ROWS = re.findall(
    r"^\| (.*) \| (`tests/.*`) \|$", (REPOSITORY_ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE
)


def test_every_route_has_a_row() -> None:
    """Each path of the OpenAPI document ends like the path of a row."""
    paths = [path.removeprefix("/…") for row, _ in TABLE_ROWS for path in re.findall(r"(/[^` ]*)`", row)]
    document = json.loads((REPOSITORY_ROOT / "openapi.json").read_text())
    collections = {path for path in document["paths"] if re.fullmatch(r"/(\w+)/\1/", path)}
    assert [path for path in document["paths"].keys() - collections if not path.endswith(tuple(paths))] == []


def test_every_row_names_existing_tests() -> None:
    """Each file in the table exists."""
    files = [name for _, files in TABLE_ROWS for name in re.findall("`(.*?)`", files)]
    assert len(TABLE_ROWS) <= len(files)
    assert [name for name in files if not (REPOSITORY_ROOT / name).is_file()] == []
