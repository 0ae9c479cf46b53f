"""Forgetting: what stays of a record whose data have to go is that there was one, and why they went."""

from sqlalchemy import Text, bindparam, case, cast, delete, func, insert, null, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, aggregate_order_by
from sqlalchemy.ext.asyncio import AsyncConnection

from app.auth.principal import Principal
from app.journal.chain import content, hexadecimal, microseconds
from app.journal.entries import author
from app.models import (
    Patient,
    Profile,
    audit,
    hospital_words,
    idempotency_keys,
    journal,
    name_words,
    patient_doctors,
    patient_hospitals,
    stale_words,
)
from app.resource.identifiers import new_identifier

PERMIT = select(func.set_config("patients.erasing", "yes", True))
FORBID = select(func.set_config("patients.erasing", "", True))
"""What the triggers of the journal and the audit ask; for the rest of the transaction."""

PERSONAL = (
    Patient.__tablename__,
    Profile.__tablename__,
    *(table.name for table in (patient_hospitals, patient_doctors, journal, audit, idempotency_keys)),
    *(table.name for table in (name_words, hospital_words, stale_words)),
)
"""The tables that hold something of persons."""
_CLEAR = text(
    """
    SELECT pg_clear_attribute_stats(schemaname, tablename, attname, inherited) FROM pg_stats
    WHERE schemaname = 'public' AND tablename = ANY (:tables)
    """
).bindparams(bindparam("tables", list(PERSONAL), type_=ARRAY(Text)))
_CLEARS = text("SELECT current_setting('server_version_num')::integer >= 180000")
_ANALYZE = text(f"ANALYZE {', '.join(PERSONAL)}")


async def renew_statistics(connection: AsyncConnection) -> None:
    """Have the planner's statistics tell nothing of what was erased; only after that was committed.

    They hold values of columns, for everybody who may read these. Cleared first, because of a table that is empty
    ANALYZE keeps the old ones; before PostgreSQL 18 nothing can clear them.
    """
    if (await connection.execute(_CLEARS)).scalar_one():
        await connection.execute(_CLEAR)
    await connection.execute(_ANALYZE)


async def forget(connection: AsyncConnection, resource: str, unique_id: str, reason: str, principal: Principal) -> int:
    """Remove a record that is gone from the journal and from stored answers; the number of entries removed.

    One entry stays, under a token in the place of the id: clients may have used an identity number as id. It lists what
    was removed, by time and hash, and which entries of other records were redacted, by their hash and that of what they
    say now: so chains can be verified.

    Raises:
        sqlalchemy.exc.ProgrammingError: the connection's role may not (SQLSTATE 42501).
    """
    token = new_identifier("erased")
    await connection.execute(PERMIT)
    redacted = []
    if resource == Profile.__tablename__:
        redacted = await _forget_links(connection, unique_id, token)
    this = (journal.c.resource == resource, journal.c.unique_id == unique_id)
    listed = (journal.c.version, microseconds(journal.c.time), hexadecimal(journal.c.hash))
    removed = sorted(map(tuple, await connection.execute(delete(journal).where(*this).returning(*listed))))
    if removed:
        version = removed[-1][0] + 1
        erasure = {"removed": [[time, entry] for _, time, entry in removed], "redacted": redacted}
        entry = {"resource": resource, "unique_id": token, "version": version, "action": "erased", "erasure": erasure}
        await connection.execute(insert(journal).values(**entry, reason=reason, **author(principal)))
    await _forget_answers(connection, f"/{resource}/{resource}/", unique_id, token)
    await _forget_looks(connection, resource, unique_id, token)
    await connection.execute(FORBID)
    return len(removed)


async def _forget_looks(connection: AsyncConnection, resource: str, unique_id: str, token: str) -> None:
    """Put the token in the place of the id in the audit: that somebody looked stays, at whom does not."""
    ids = audit.c.ids
    looks = (audit.c.resource == resource, ids.contains([unique_id]))
    renamed = func.array_replace(ids, unique_id, token)
    await connection.execute(update(audit).where(*looks).values(ids=renamed, reason=null()))


async def _forget_answers(connection: AsyncConnection, path: str, unique_id: str, token: str) -> None:
    """Empty the stored answers that tell of a record; the keys stay, so that a request sent again makes no new one."""
    columns = idempotency_keys.c
    about = columns.path.startswith(f"{path}{unique_id}/", autoescape=True)
    await connection.execute(delete(idempotency_keys).where(about))
    made = (columns.path == path, columns.unique_id == unique_id)
    await connection.execute(
        update(idempotency_keys).where(*made).values(unique_id=token, document=null(), fingerprint=b"")
    )


async def _forget_links(connection: AsyncConnection, profile_id: str, token: str) -> list[list[str]]:
    """Take a profile out of what is stored of patients who had it once.

    Of each entry that was redacted, its hash and the hash of what it says now: nobody can change that afterwards.

    An entry keeps the hash of what it said, with which its chain goes on. Its salt goes: without it nobody can try
    which id was there.
    """
    patients = Patient.__tablename__
    record = journal.c.record
    fields = func.json_each(record).table_valued("key", "value", with_ordinality="place", name="field").render_derived()
    value = case((fields.c.key == "profile_id", func.to_json(cast(token, Text))), else_=fields.c.value)
    renamed = select(func.json_object_agg(fields.c.key, aggregate_order_by(value, fields.c.place))).scalar_subquery()
    named = (journal.c.resource == patients, record.op("->>")("profile_id") == profile_id)
    kept = func.json_build_object("content", hexadecimal(content(journal)))
    redacted = update(journal).where(*named).values(record=renamed, erasure=kept, salt=null())
    listed = redacted.returning(hexadecimal(journal.c.hash), hexadecimal(content(journal)))
    hashes = sorted(map(list, await connection.execute(listed)))
    columns = idempotency_keys.c
    held = cast(columns.document, JSONB)["patient_profile"]["unique_id"].astext == profile_id
    answers = update(idempotency_keys).where(columns.path.startswith(f"/{patients}/"), held).values(document=null())
    await connection.execute(answers)
    return hashes
