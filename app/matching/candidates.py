"""Finds the patients that other patients are compared with, by indexes of the table.

Each kind of evidence is a branch of the statement with its own limit, so that a frequent name costs no more than
others. One statement finds the candidates of many patients.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import asyncpg
from sqlalchemy import TextClause, bindparam, text
from sqlalchemy.dialects.postgresql import JSON

from app.db.connection import Connection
from app.likeness.values import phone_digits
from app.locality.names import name_words
from app.matching.person import COMPARED_FIELDS
from app.matching.similar_words import HOSPITALS, LONG_WORD_LENGTH, MAX_KEPT_WORDS, SimilarWords, names_query

MAX_SEARCHED_WORDS = 6
"""Maximum number of words of a name that are searched for, so that a long text in place of a name is no heavy query."""
MAX_NAMESAKES = 1000
"""Maximum number of patients with a similar first and last name that are read. Those that agree best on the date of
birth and the place become candidates.
"""
ADDRESS_PREFIX_LENGTH = 8
"""Number of characters at the beginning of an address, which are the house number and the beginning of the street, by
which neighbours are found. There is an index on them.
"""
MAX_NEIGHBOURS = 200
"""Maximum number of patients with almost the same address that are read.

Those with similar names become candidates, and so do those with the same date of birth, by which they are found if
there are more neighbours.
"""
MAX_CANDIDATES_PER_BRANCH = 20
SEARCHED_PHONE_DIGITS = 8
"""Number of digits at the end of a phone number by which it is found.

They are the same however the number is written, with or without the code of its country, also in countries with shorter
numbers than those of South Africa.
"""


_PARTS_OF_DATES = {part: f"date_part('{part}', patient_date_of_birth) = {part}" for part in ("year", "month", "day")}
BIRTH_MAY_AGREE = f"""(
    coalesce({" AND ".join(_PARTS_OF_DATES.values())}, true)
    OR ({")::integer + (".join(_PARTS_OF_DATES.values())})::integer > 1
    OR ({_PARTS_OF_DATES["year"]} AND (
        (date_part('month', patient_date_of_birth) = day AND date_part('day', patient_date_of_birth) = month)
        OR date_part('doy', patient_date_of_birth) = 1 OR (month = 1 AND day = 1)
    ))
)"""
"""SQL condition that the dates of birth of a candidate and of the given patient are equal, similar or not both known.

All other dates are *different* (`app.likeness.values.compare_dates`). One exception is not covered: two swapped digits,
one of the day and one of the month, a mistake that separators prevent. People with different dates of birth are
candidates only if something besides the names agrees, because otherwise the comparison gives them no grade."""


_HAS_ADDRESS = "coalesce(patient_physical_address, patient_address_line_1) IS NOT NULL"


def _candidates_statement(*, restricted: bool) -> TextClause:
    """Return the statement that selects the compared fields of the candidates of each patient in `:given`.

    Each row begins with the number of the patient, `n`, and the id of the candidate. The values `first_name` and
    `last_name` are conditions on the search index: that a patient has a word of this name. The index takes a fifth less
    time for two conditions than for a conjunction in one.
    """
    scope = (
        "EXISTS (SELECT FROM patient_hospitals WHERE patient_id = unique_id AND hospital_id = ANY (:hospitals))"
        if restricted
        else "true"
    )
    same_place = "(patient_postal_code_folded = postal_code OR patient_town_folded = town)"
    # a home in common shows only in the address if the dates of birth are different
    same_home = f"(has_address AND {_HAS_ADDRESS} AND {same_place})"
    has_names = "patient_search @@ first_name AND patient_search @@ last_name"
    address_start = f"left(fold(patient_physical_address), {ADDRESS_PREFIX_LENGTH})"
    limit = MAX_CANDIDATES_PER_BRANCH
    statement = text(
        f"""
        -- materialized, so that the queries of names are parsed once for each patient, not for each candidate
        WITH given AS MATERIALIZED (
            SELECT n, own_id, phone, fold(email) AS email, born, date_part('year', born) AS year,
                date_part('month', born) AS month, date_part('day', born) AS day,
                CAST(first AS tsquery) AS first_name, CAST(last AS tsquery) AS last_name,
                coalesce(CAST(first AS tsquery) || CAST(last AS tsquery), CAST(first AS tsquery), CAST(last AS tsquery))
                    AS names,
                fold(town) AS town, fold(postal_code) AS postal_code,
                left(fold(address), {ADDRESS_PREFIX_LENGTH}) AS address, has_address, identifiers
            FROM json_to_recordset(:given) AS given(
                n integer, own_id text, phone text, email text, born date, first text, last text, town text,
                postal_code text, address text, has_address boolean, identifiers text[]
            )
        )
        SELECT n, unique_id, {", ".join(COMPARED_FIELDS)}
        FROM given CROSS JOIN LATERAL (
            WITH neighbours AS MATERIALIZED (
                SELECT unique_id, patient_search, patient_date_of_birth, patient_town_folded, patient_postal_code_folded
                FROM patients WHERE {address_start} = address AND {scope} LIMIT {MAX_NEIGHBOURS}
            )
            (SELECT unique_id FROM (
                SELECT patient_id AS unique_id FROM patient_identifiers WHERE value = ANY (identifiers)
            ) AS holders WHERE {scope} LIMIT {limit})
            UNION
            -- the range is that of the index; a short number must be equal, not only the end of another
            (SELECT unique_id FROM patients
            WHERE reverse(patient_mobile_digits) >= phone AND reverse(patient_mobile_digits) < phone || '~'
                AND left(reverse(patient_mobile_digits), {SEARCHED_PHONE_DIGITS}) = phone AND {scope}
            LIMIT {limit})
            UNION
            (SELECT unique_id FROM patients WHERE patient_email_address_folded = email AND {scope} LIMIT {limit})
            UNION
            (SELECT unique_id FROM patients
            WHERE patient_date_of_birth = born AND {scope} AND (patient_search @@ names OR {same_place})
            ORDER BY ({has_names}) DESC NULLS LAST LIMIT {limit})
            UNION
            (SELECT unique_id FROM (
                SELECT * FROM patients WHERE {has_names} AND {scope} LIMIT {MAX_NAMESAKES}
            ) AS namesakes
            WHERE {BIRTH_MAY_AGREE} OR {same_home}
            ORDER BY (patient_town_folded = town)::integer + (patient_postal_code_folded = postal_code)::integer
                + CASE WHEN patient_date_of_birth = born THEN 0 WHEN (patient_date_of_birth = born) IS NULL THEN 1
                    WHEN {BIRTH_MAY_AGREE} THEN 3 ELSE 0 END DESC NULLS LAST
            LIMIT {limit})
            UNION
            (SELECT unique_id FROM neighbours
            WHERE patient_search @@ names OR patient_date_of_birth = born OR ({same_place} AND {BIRTH_MAY_AGREE})
            ORDER BY coalesce(patient_date_of_birth = born, false) DESC, patient_search @@ names DESC NULLS LAST
            LIMIT {limit})
            UNION
            -- if there are more neighbours than are read
            (SELECT unique_id FROM patients
            WHERE patient_date_of_birth = born AND {scope} AND {address_start} = address
                AND (SELECT count(*) FROM neighbours) = {MAX_NEIGHBOURS}
            LIMIT {limit})
        ) AS found JOIN patients USING (unique_id)
        WHERE unique_id IS DISTINCT FROM own_id
        """  # noqa: S608  # contains only our own constants
    ).bindparams(bindparam("given", type_=JSON))
    return statement.bindparams(HOSPITALS) if restricted else statement


_SELECT_CANDIDATES = {restricted: _candidates_statement(restricted=restricted) for restricted in (False, True)}


async def find_candidates(
    connection: Connection, patients: Sequence[Mapping[str, Any]], similar_words: SimilarWords
) -> list[list[asyncpg.Record]]:
    """Return the candidates of each of the `patients`, which have the `COMPARED_FIELDS` and may have a `unique_id`.

    A candidate has a `unique_id` and the same fields, and is never the patient with the same `unique_id`. It is in the
    hospital scope of `similar_words`.
    """
    names = [
        (_searched_words(patient["patient_first_name"]), _searched_words(patient["patient_last_name"]))
        for patient in patients
    ]
    words = {word for first_and_last in names for name in first_and_last for word in name}
    similar = await similar_words.read(connection, words)
    given = []
    for number, (patient, (first, last)) in enumerate(zip(patients, names, strict=True)):
        phone, address = phone_digits(patient["patient_mobile_number"] or ""), patient["patient_physical_address"]
        given.append(
            {
                "n": number,
                "own_id": patient.get("unique_id"),
                "phone": phone[-SEARCHED_PHONE_DIGITS:][::-1] or None,
                "email": patient["patient_email_address"],
                "born": patient["patient_date_of_birth"],
                "first": names_query(first, similar) if first else None,
                "last": names_query(last, similar) if last else None,
                "town": patient["patient_town"],
                "postal_code": patient["patient_postal_code"],
                "address": address,
                "has_address": bool(address or patient["patient_address_line_1"]),
                "identifiers": [each["normalized"] for each in patient["patient_identifiers"] or ()],
            }
        )
    candidates: list[list[asyncpg.Record]] = [[] for _ in patients]
    parameters = {"given": given, **similar_words.scope}
    for record in (await connection.execute(_SELECT_CANDIDATES[bool(similar_words.scope)], parameters)).records:
        candidates[record[0]].append(record)
    return candidates


@lru_cache(MAX_KEPT_WORDS)
def _searched_words(name: str | None) -> tuple[str, ...]:
    """Return the words by which a name is found: its first long words, and all of its words as one."""
    words = name_words(name or "")
    long_words = [word for word in words if len(word) >= LONG_WORD_LENGTH] or words
    return (*long_words[:MAX_SEARCHED_WORDS], *(["".join(words)] if len(words) > 1 else []))
