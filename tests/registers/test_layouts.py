"""Whole registers in the layouts of other systems, each taken with one command and at most one mapping file."""

from pathlib import Path

import pytest

from app.db.connection import Connection
from app.db.database import Database
from tests.registers.layouts import LAYOUTS, ROW_COUNT
from tests.registers.test_samples import UndoError, database, import_sample, stored_patients

__all__ = ["database"]


@pytest.mark.parametrize("name", LAYOUTS)
async def test_a_register_is_taken_with_one_command(name: str, database: Database, tmp_path: Path) -> None:
    """All thousand patients of a register are taken as they are."""
    file_name, write, options = LAYOUTS[name]
    file = tmp_path / file_name
    expected = write(file)
    options = tuple(str(file.with_suffix(".toml")) if option == "MAP" else option for option in options)

    async def work(connection: Connection) -> None:
        summary, errors = await import_sample(connection, file, options)
        assert (summary.lines, summary.by_status["created"], summary.rejected) == (ROW_COUNT, ROW_COUNT, 0), errors[:3]
        first = next(one for one in await stored_patients(connection) if one["unique_id"] == expected["unique_id"])
        assert {field: first.get(field) for field in expected} == expected
        raise UndoError

    with pytest.raises(UndoError):
        await database.transaction(work, max_attempts=1)
