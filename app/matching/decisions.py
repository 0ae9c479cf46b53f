"""Decisions on pairs that other requests imply: that a new patient is another person, and that two are merged."""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import bindparam, delete, text
from sqlalchemy.dialects.postgresql import JSON

from app.db.base import ID_TEXT
from app.db.connection import Connection
from app.identifiers import new_identifier
from app.matching.weights import Grade
from app.models import duplicates

_PAIR = duplicates.c
_STORE_DECISIONS = text(
    """
    INSERT INTO duplicates
        (unique_id, one_id, other_id, grade, own_grade, score, agrees, differs, fingerprint, status, reason)
    SELECT
        decided.unique_id, one_id, other_id, grade, grade, score, agrees, differs, decode(fingerprint, 'hex'), status,
        reason
    FROM json_to_recordset(:pairs) AS decided(
        unique_id text, one_id text, other_id text, grade text, score float8, agrees text[], differs text[],
        fingerprint text, status text, reason text
    )
    -- locked, so that no pair is stored after the erasure of one of its patients
    JOIN patients AS one ON one.unique_id = one_id JOIN patients AS other ON other.unique_id = other_id
    ORDER BY one_id COLLATE "C", other_id COLLATE "C"
    FOR KEY SHARE OF one, other
    ON CONFLICT (one_id, other_id) DO UPDATE SET (status, reason, own_grade) = (
        EXCLUDED.status, EXCLUDED.reason, coalesce(duplicates.own_grade, EXCLUDED.own_grade)
    )
    """
).bindparams(bindparam("pairs", type_=JSON))
_DELETE_MERGED = delete(duplicates).where(
    _PAIR.one_id == bindparam("lesser_id", type_=ID_TEXT),
    _PAIR.other_id == bindparam("greater_id", type_=ID_TEXT),
    _PAIR.status == "merged",
)


async def dismiss_new(connection: Connection, unique_id: str, other_ids: Sequence[str]) -> None:
    """Decide that a new patient is another person than the patients `other_ids`, which must exist."""
    await _store_decisions(connection, unique_id, other_ids, "dismissed", "registered as another person")


async def store_merged_pair(connection: Connection, unique_id: str, loser_id: str) -> None:
    """Set the status of the pair of two patients to merged. Both must still exist."""
    await _store_decisions(connection, unique_id, [loser_id], "merged")


async def delete_merged_pair(connection: Connection, unique_id: str, loser_id: str) -> None:
    """Delete the merged pair of two patients, so that both are compared like others."""
    lesser_id, greater_id = sorted((unique_id, loser_id))
    await connection.execute(_DELETE_MERGED, {"lesser_id": lesser_id, "greater_id": greater_id})


async def _store_decisions(
    connection: Connection, unique_id: str, other_ids: Sequence[str], status: str, reason: str | None = None
) -> None:
    # commands that only need the services do without the libraries and lists of names with which patients are compared
    from app.matching.comparison import compare  # noqa: PLC0415
    from app.matching.pairs import PREFIX, fingerprint, read_patients  # noqa: PLC0415
    from app.matching.person import Person  # noqa: PLC0415

    patients = await read_patients(connection, [unique_id, *other_ids])
    today = datetime.now(UTC).date()
    rows = []
    for other_id in sorted({*other_ids} & patients.keys()):  # without those that were deleted meanwhile
        one_id, other = sorted((unique_id, other_id))
        values = patients[one_id], patients[other]
        comparison = compare(Person.from_fields(values[0]), Person.from_fields(values[1]), today)
        rows.append(
            {
                "unique_id": new_identifier(PREFIX),
                "one_id": one_id,
                "other_id": other,
                "grade": comparison.grade or Grade.POSSIBLE,
                "score": comparison.score,
                "agrees": comparison.agrees,
                "differs": comparison.differs,
                "fingerprint": fingerprint(*values).hex(),
                "status": status,
                "reason": reason,
            }
        )
    await connection.execute(_STORE_DECISIONS, {"pairs": rows})
