"""An import has the same result as posting its lines one by one."""

from random import Random
from typing import Any

import asyncpg
import httpx
import pytest

from tests.transfer.support import PATIENTS, ndjson, run_cli_on
from tests.transfer.test_import import INVALID_BODIES

pytestmark = pytest.mark.usefixtures("hospitals_and_doctors")

SELECT_STATE = (
    "SELECT to_jsonb(p) - '{date_created,last_updated}'::text[] FROM patients p ORDER BY unique_id",
    "SELECT to_jsonb(p) - '{date_created,last_updated}'::text[] FROM profiles p ORDER BY unique_id",
    "SELECT to_jsonb(l) FROM patient_hospitals l ORDER BY patient_id, hospital_id",
    "SELECT to_jsonb(l) FROM patient_doctors l ORDER BY patient_id, doctor_id",
    "SELECT word FROM name_words ORDER BY word",
    "SELECT to_jsonb(w) - 'since' FROM hospital_words w ORDER BY hospital_id, word",
    """
    SELECT jsonb_build_array(
        resource, unique_id, version, action, record::jsonb - '{date_created,last_updated}'::text[])
    FROM journal WHERE resource IN ('patients', 'profiles') ORDER BY resource, unique_id, version
    """,
)
"""Everything a database stores, except timestamps and actors."""


async def database_state(url: str) -> list[list[Any]]:
    connection = await asyncpg.connect(url)
    try:
        return [[value for (value,) in await connection.fetch(query)] for query in SELECT_STATE]
    finally:
        await connection.close()


def random_lines(random: Random, number: int) -> list[dict[str, Any]]:
    """Return lines with new patients, repeated ids, shared profiles, invalid values and unknown links."""
    drawn = []
    for _ in range(number):
        if random.random() < 0.1:
            drawn.append(dict(random.choice(INVALID_BODIES)))
            continue
        body: dict[str, Any] = {
            "unique_id": f"pat{random.randrange(number)}",
            "patient_last_name": random.choice(("Doe", "Müller", "van der Merwe", None)),
            "patient_first_name": random.choice(("Zoë", "Ann", None)),
            "patient_latitude": random.choice(("1.5", -7, None)),
            "patient_date_of_birth": random.choice(("1980-02-29", None)),
            "hospital_ids": random.sample(["hos123", "hos456", "hos789", "hos123", "hos0"], random.randrange(3)),
            "doctor_ids": random.sample(["doc123", "doc456"], random.randrange(3)),
        }
        if random.random() < 0.6:
            profile: dict[str, Any] = {"unique_id": f"prof{random.randrange(8)}"}
            for name, values in (("email", ("a@example.com", None)), ("first_name", ("Zoë", "Ann"))):
                if random.random() < 0.5:
                    profile[name] = random.choice(values)
            body["patient_profile"] = profile
        for name in random.sample(sorted(body), random.randrange(3)):
            if name != "unique_id":  # with generated ids the databases could not be compared
                del body[name]
        drawn.append(body)
    return drawn


@pytest.mark.parametrize("seed", range(3))
async def test_import_equals_posting_line_by_line(
    seed: int, database_url: str, another_url: str, client: httpx.AsyncClient
) -> None:
    """An import stores the same records, links, profiles, words and journal entries as posting its lines."""
    for resource in ("hospitals", "doctors"):
        exported = await run_cli_on(database_url, "export", "--resource", resource)
        await run_cli_on(another_url, "import", "-", "--resource", resource, stdin=exported.stdout)
    drawn = random_lines(Random(seed), 400)  # noqa: S311  # no secret
    statuses = {(await client.post(PATIENTS, json=body)).status_code for body in drawn}
    assert statuses == {201, 409, 422}
    run = await run_cli_on(another_url, "import", "-", "--on-error", "skip", stdin=ndjson(drawn))
    assert run.stdout.endswith("Stored, except for the rejected lines.\n")
    posted, imported = await database_state(database_url), await database_state(another_url)
    for query, expected, found in zip(SELECT_STATE, posted, imported, strict=True):
        assert found == expected, query
    assert len(posted[0]) > 100
