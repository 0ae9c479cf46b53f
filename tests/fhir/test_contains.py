"""The modifier `:contains` of patients: complete and exact, however the candidates are found."""

import asyncpg
import httpx
import pytest

from app.fhir_search.places import MAX_PLACES
from app.vocabulary import containing
from app.vocabulary.containing import MAX_CONTAINING_WORDS
from tests.fhir.support import PATIENT, checked, found_ids

NAMES = (
    "O'Brien-Smith",
    "van der Merwe",
    "Müller",
    "Ó Dálaigh",
    "李小龙",
    "D’Arcy",
    "Ngũgĩ wa Thiong'o",
    "ﬁnch",
    "x 1y_2%",
)
TEXTS = (
    "rien",
    "en-sm",
    "ien smith",
    "r mer",
    "ÜL",
    "ll",
    "dal",
    "小",
    "小龙",
    "'a",
    "gi",
    "a",
    "o",
    "'",
    "fin",
    "1Y_",
    "_",
    "%",
)


@pytest.mark.parametrize("max_words", [MAX_CONTAINING_WORDS, 0], ids=["by words", "by a scan"])
async def test_contains_finds_what_a_comparison_of_all_names_finds(
    client: httpx.AsyncClient, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, max_words: int
) -> None:
    """`:contains` finds each name with the text and no other, whether words lead to them or not."""
    monkeypatch.setattr(containing, "MAX_CONTAINING_WORDS", max_words)
    rows = [(f"p{number}", name) for number, name in enumerate(NAMES)]
    await connection.executemany("INSERT INTO patients (unique_id, patient_last_name) VALUES ($1, $2)", rows)
    got, expected = {}, {}
    for text in TEXTS:
        got[text] = found_ids(checked(await client.get(PATIENT, params={"family:contains": text})))
        found = await connection.fetch(
            "SELECT unique_id FROM patients WHERE strpos(fold(patient_last_name), fold($1)) > 0 ORDER BY 1", text
        )
        expected[text] = [unique_id for (unique_id,) in found]
    assert got == expected
    assert all(ids for text, ids in expected.items() if text not in {"'a", "ien smith"})


async def test_contains_finds_places_whether_they_are_few_or_many(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """`:contains` finds patients by parts of their towns, also if there are so many that all patients are compared."""
    texts = {"eto": ["p1"], "EAD": ["p2", "p3"], "sow": ["p1"], "xyz": [], "e b": ["p2"]}
    await connection.execute(
        "INSERT INTO patients (unique_id, patient_last_name, patient_town, patient_region) VALUES"
        " ('p1', 'Doe', 'Soweto', NULL), ('p2', 'Doe', 'Glebe by Mead', 'x'), ('p3', 'Doe', NULL, 'Headlands')"
    )

    async def found() -> dict[str, list[str]]:
        responses = {text: await client.get(PATIENT, params={"address:contains": text}) for text in texts}
        return {text: found_ids(checked(response)) for text, response in responses.items()}

    assert await found() == texts
    await connection.execute(
        "INSERT INTO patients (unique_id, patient_last_name, patient_town)"
        " SELECT 'q' || n, 'Doe', 'T' || n FROM generate_series(0, $1::int) n",
        MAX_PLACES,
    )
    assert await found() == texts
