"""Removes an erased patient from the journal entries of patients with which it was merged for a while.

Patients that are merged at the time are erased together. If the merge was undone, the other patient is another person,
whose entries name the erased one and, while they were merged, have values of it.
"""

from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Text,
    Update,
    any_,
    bindparam,
    exists,
    func,
    null,
    text,
    type_coerce,
    update,
)
from sqlalchemy.dialects.postgresql import JSON

from app.db.base import ID_TEXT
from app.db.connection import Connection
from app.models import Patient, idempotency_keys, journal
from app.paths import record_path
from app.records.journal_hash import content_hash, hex_text, original_content_hash

_SELECT_OTHERS = text(
    """
    SELECT DISTINCT step.value
    FROM journal CROSS JOIN LATERAL json_each_text(merge) AS step
    WHERE resource = 'patients' AND unique_id = :id AND merge IS NOT NULL
    """
).bindparams(bindparam("id", type_=ID_TEXT))
_SELECT_SPANS = text(
    """
    SELECT step.unique_id, step.version AS first, (
        SELECT min(undone.version) FROM journal undone
        WHERE undone.resource = 'patients' AND undone.unique_id = step.unique_id AND undone.version > step.version
            AND undone.merge ->> 'unmerged' = :id
    ) AS until
    FROM journal step
    WHERE step.resource = 'patients' AND step.unique_id = ANY (:others) AND step.merge ->> 'merged_from' = :id
    """
).bindparams(bindparam("id", type_=ID_TEXT), bindparam("others", type_=ARRAY(ID_TEXT)))
"""Selects the merges of the patient `:id` into others: the id of the other patient, and its first version with and
without the values of this one."""
_WITHOUT_ID: ColumnElement[Any] = type_coerce(
    text(
        "(SELECT json_object_agg(key, CASE value WHEN CAST(:id AS text) THEN CAST(:token AS text) ELSE value END)"
        " FROM json_each_text(merge))"
    ),
    JSON,
)
_WITHOUT_VALUES: ColumnElement[Any] = type_coerce(
    text(
        """
    (
        SELECT json_object_agg(key, value ORDER BY ordinal)
        FROM (
            SELECT field.key, field.ordinal, CASE
                WHEN json_typeof(field.value) = 'array' THEN (
                    -- of a set, what the merge has added
                    SELECT CASE WHEN count(*) > 0 OR before.record -> field.key IS NOT NULL
                        THEN coalesce(json_agg(element ORDER BY number), '[]') END
                    FROM json_array_elements(field.value) WITH ORDINALITY AS part (element, number)
                    WHERE NOT coalesce((after.record -> field.key)::jsonb @> jsonb_build_array(element), FALSE)
                        OR coalesce((before.record -> field.key)::jsonb @> jsonb_build_array(element), FALSE)
                )
                WHEN field.key <> 'last_updated' AND field.value::jsonb = (after.record -> field.key)::jsonb
                THEN before.record -> field.key ELSE field.value END AS value
            FROM json_each(journal.record) WITH ORDINALITY AS field (key, value, ordinal), journal before, journal after
            WHERE before.resource = 'patients' AND before.unique_id = :other AND before.version = :first - 1
                AND after.resource = 'patients' AND after.unique_id = :other AND after.version = :first
        ) AS kept
        WHERE value IS NOT NULL
    )
    """
    ),
    JSON,
)
"""The record of an entry with the values that the survivor had before a merge in place of those that it got by it."""


def _redact(*conditions: ColumnElement[bool], **values: ColumnElement[Any]) -> Update:
    """Return a statement that changes journal entries, and returns their hash and that of their new content.

    An entry keeps the hash of its original content and the token of the erased patient, and loses its salt.
    """
    kept_hash = func.json_build_object("content", original_content_hash(), "by", bindparam("token", type_=Text))
    statement = update(journal).where(journal.c.resource == Patient.__tablename__, *conditions)
    statement = statement.values(**values, erasure=kept_hash, salt=null())
    return statement.returning(hex_text(journal.c.hash), hex_text(content_hash(journal)))


_REDACT_VALUES = _redact(
    journal.c.unique_id == bindparam("other", type_=ID_TEXT),
    journal.c.version >= bindparam("first", type_=BigInteger),
    journal.c.version < bindparam("until", type_=BigInteger),
    journal.c.record.is_not(None),
    record=_WITHOUT_VALUES,
)
_REDACT_ID = _redact(
    journal.c.unique_id == any_(bindparam("others", type_=ARRAY(ID_TEXT))),
    exists(text("FROM json_each_text(merge) AS named WHERE named.value = :id")),
    merge=_WITHOUT_ID,
)


async def redact_merges(connection: Connection, unique_id: str, token: str) -> list[list[str]]:
    """Remove a patient from the entries of patients with which it was merged, and from stored responses about merges.

    In these entries, the token replaces the patient's id, and values that the other patient got from it are what they
    were before. Return `[hash, hash of the new content]`, both in hexadecimal, for each redacted entry.
    """
    others = (await connection.execute(_SELECT_OTHERS, {"id": unique_id})).scalars().all()
    redacted: dict[str, str] = {}
    spans = (await connection.execute(_SELECT_SPANS, {"id": unique_id, "others": others})).all()
    for other, first, until in spans:
        if until is not None:  # otherwise both are erased
            span = {"other": other, "first": first, "until": until, "token": token}
            redacted |= dict(tuple(row) for row in await connection.execute(_REDACT_VALUES, span))
    parameters = {"id": unique_id, "others": others, "token": token}
    redacted |= dict(tuple(row) for row in await connection.execute(_REDACT_ID, parameters))
    paths = [f"{record_path(Patient.__tablename__, other)}{step}/" for other in others for step in ("merge", "unmerge")]
    await connection.execute(_CLEAR_RESPONSES, {"paths": paths})
    return sorted([kept, new] for kept, new in redacted.items())


_CLEAR_RESPONSES = (
    update(idempotency_keys)
    .where(idempotency_keys.c.path == any_(bindparam("paths", type_=ARRAY(ID_TEXT))))
    .values(document=null())
)
