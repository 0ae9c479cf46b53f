"""`patients-api import --duplicates`, and `patients-api duplicates scan`."""

import csv
from pathlib import Path

import asyncpg
import httpx
import pytest

from tests.duplicates.support import AGAIN, NAMESAKE, THANDI, TWIN, queue, register
from tests.transfer.support import ndjson, run_cli_on, run_import

LINES = ndjson(
    {**fields, "unique_id": unique_id, "patient_date_of_birth": fields.get("patient_date_of_birth")}
    for unique_id, fields in {"one": AGAIN, "two": NAMESAKE, "three": TWIN, "four": NAMESAKE}.items()
)
"""A person who is registered already, a namesake, a twin, and the namesake again."""


async def test_refuse_rejects_lines_of_registered_people(
    client: httpx.AsyncClient, database_url: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    """Lines of people who are stored, or in an earlier line, are errors; all other lines can be stored."""
    await register(client, "thandi", **THANDI)
    errors = tmp_path / "errors.csv"
    arguments = ("import", "-", "--duplicates", "refuse", "--errors", errors)
    run = await run_cli_on(database_url, *arguments, stdin=LINES)
    assert run.returncode == 1
    with errors.open(newline="", encoding="utf-8") as file:
        assert [(row["line"], row["type"]) for row in csv.DictReader(file)] == [
            ("1", "possible_duplicate"),
            ("4", "possible_duplicate"),
        ]
    assert await connection.fetchval("SELECT count(*) FROM patients") == 1
    run = await run_cli_on(database_url, *arguments, "--on-error", "skip", stdin=LINES)
    ids = await connection.fetch("SELECT unique_id FROM patients ORDER BY unique_id")
    assert [row["unique_id"] for row in ids] == ["thandi", "three", "two"]


async def test_a_line_that_is_not_stored_refuses_no_later_one(database_url: str, tmp_path: Path) -> None:
    """A person and an identifier of which earlier lines are rejected are stored with the next line, but not twice."""
    wrong = {"hospital_ids": ["unknown"]}
    passport = {"patient_identifiers": [{"type": "passport", "value": "T1"}]}
    errors = tmp_path / "errors.csv"
    lines = ndjson([{**THANDI, **wrong, **passport}, THANDI, {**AGAIN, **passport}, {**TWIN, **passport}, NAMESAKE])
    arguments = ("import", "-", "--duplicates", "refuse", "--on-error", "skip", "--errors", errors)
    run = await run_cli_on(database_url, *arguments, stdin=lines)
    assert "3 created" in run.stdout, run.stdout + run.stderr
    with errors.open(newline="", encoding="utf-8") as file:
        assert [(row["line"], row["type"]) for row in csv.DictReader(file)] == [
            ("1", "unknown_hospital"),
            ("3", "possible_duplicate"),
        ]


@pytest.mark.parametrize("stored", [0, 1], ids=["into empty tables", "into filled tables"])
async def test_report_queues_pairs_and_ignore_leaves_them_to_a_scan(
    client: httpx.AsyncClient, database_url: str, connection: asyncpg.Connection, stored: int
) -> None:
    """By default, imported patients are compared in the background. With `ignore`, only a scan finds their pairs."""
    if stored:
        await register(client, "other", patient_last_name="Botha")
        assert await queue(client) == []
    await run_import(database_url, "-", "--duplicates", "ignore", stdin=LINES)
    assert await queue(client) == []
    run = await run_cli_on(database_url, "duplicates", "scan")
    assert run.stdout.startswith(f"Compared {4 + stored} patients.")
    expected = {("one", "three"), ("four", "two")}
    assert {tuple(entry["patients"]) for entry in await queue(client)} == expected
    await connection.execute("DELETE FROM duplicates")
    await connection.execute("DELETE FROM patients")
    await queue(client)
    await run_import(database_url, "-", stdin=LINES.replace('"unique_id": "', '"unique_id": "new-'))
    assert {tuple(entry["patients"]) for entry in await queue(client)} == {
        tuple(f"new-{unique_id}" for unique_id in pair) for pair in expected
    }
