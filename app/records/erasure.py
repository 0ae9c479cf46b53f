"""Erases records: removes all data of a record except for the fact that it existed and the reason for the erasure."""

from sqlalchemy import (
    BigInteger,
    Text,
    all_,
    and_,
    any_,
    bindparam,
    case,
    cast,
    delete,
    exists,
    func,
    insert,
    literal_column,
    not_,
    null,
    or_,
    select,
    text,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, aggregate_order_by

from app.auth.principal import Principal
from app.db.base import ID_TEXT
from app.db.connection import Connection
from app.db.database import PROPAGATE_SETTINGS
from app.identifiers import new_identifier
from app.models import (
    Patient,
    Profile,
    audit,
    changes,
    changes_pending,
    duplicate_scans,
    duplicates,
    hospital_changes,
    hospital_words,
    idempotency_keys,
    journal,
    name_words,
    patient_doctors,
    patient_hospitals,
    patient_identifiers,
    pending_comparisons,
    stale_words,
)
from app.models.change import NUMBERING_BATCH_SIZE, NUMBERING_LOCK_KEY
from app.paths import list_path, router_prefix
from app.records.journal_hash import content_hash, epoch_microseconds, hex_text, original_content_hash
from app.records.merge_redaction import redact_merges
from app.statements.journal_entries import author_parameters

ALLOW_ERASURE = text("SET LOCAL patients.erasing = 'yes'")
DENY_ERASURE = text("SET LOCAL patients.erasing = ''")
"""`ALLOW_ERASURE` and `DENY_ERASURE` are statements that allow and forbid erasure for the rest of the transaction. They
set a configuration parameter, which is read by the triggers of the journal and of the audit. After
`PROPAGATE_SETTINGS`, this includes the triggers on the workers of Citus."""

PERSONAL_DATA_TABLES = (
    Patient.__tablename__,
    Profile.__tablename__,
    *(table.name for table in (patient_hospitals, patient_doctors, journal, audit, idempotency_keys)),
    *(table.name for table in (name_words, hospital_words, stale_words, changes, changes_pending)),
    *(table.name for table in (patient_identifiers, duplicates, pending_comparisons, duplicate_scans)),
)
"""Names of the tables with personal data. The planner statistics of these tables are rebuilt after an erasure."""
_CLEAR_STATISTICS_STATEMENT = text(
    """
    SELECT pg_clear_attribute_stats(schemaname, tablename, attname, inherited) FROM pg_stats
    WHERE schemaname = 'public' AND tablename = ANY (:tables)
    """
).bindparams(bindparam("tables", list(PERSONAL_DATA_TABLES), type_=ARRAY(Text)))
_SELECT_CAN_CLEAR_STATISTICS = text("SELECT current_setting('server_version_num')::integer >= 180000")
_ANALYZE_STATEMENT = text(f"ANALYZE {', '.join(PERSONAL_DATA_TABLES)}")


async def renew_statistics(connection: Connection) -> None:
    """Rebuild the planner statistics of all tables with personal data, to remove erased values from the statistics.

    Call this function after the erasure is committed. An earlier call has no effect. Statistics contain values of the
    columns, and every role that may read a column can also read the statistics of the column. The statistics are
    cleared first, because ANALYZE keeps the old statistics of a table that is now empty. PostgreSQL versions before 18
    cannot clear statistics, so there the old statistics of such a table remain.
    """
    if (await connection.execute(_SELECT_CAN_CLEAR_STATISTICS)).scalar_one():
        await connection.execute(_CLEAR_STATISTICS_STATEMENT)
    await connection.execute(_ANALYZE_STATEMENT)


async def erase_traces(connection: Connection, resource: str, unique_id: str, reason: str, principal: Principal) -> int:
    """Remove a deleted record from the journal, the stored responses, the audit and the change feed.

    Return the number of removed journal entries. A new journal entry records the erasure. This entry has a token in
    place of the record's id, because clients may have used an identity number as the id. It lists the time and hash of
    each removed entry. For each redacted entry of another record, it lists the hash of the entry and the hash of the
    entry's new content. The hash chains can therefore still be verified.

    Raises:
        asyncpg.InsufficientPrivilegeError: the role of the connection lacks the privilege.
    """
    token = new_identifier("erased")
    await connection.execute(PROPAGATE_SETTINGS)
    await connection.execute(ALLOW_ERASURE)
    redacted = []
    if resource == Profile.__tablename__:
        redacted = await _redact_profile_links(connection, unique_id, token)
    elif resource == Patient.__tablename__:
        await _delete_pairs(connection, unique_id)
        redacted = await redact_merges(connection, unique_id, token)
    await _number_changes(connection)  # while the journal still has the entries of the record
    is_of_record = (journal.c.resource == resource, journal.c.unique_id == unique_id)
    hospitals = (await connection.execute(_SELECT_LAST_HOSPITALS.where(*is_of_record))).scalar_one_or_none()
    returned_columns = (journal.c.version, epoch_microseconds(journal.c.time), hex_text(journal.c.hash))
    removed = sorted(
        map(tuple, await connection.execute(delete(journal).where(*is_of_record).returning(*returned_columns)))
    )
    if removed:
        version = removed[-1][0] + 1
        erasure = {"removed": [[time, entry] for _, time, entry in removed], "redacted": redacted}
        entry = {"resource": resource, "unique_id": token, "version": version, "action": "erased", "erasure": erasure}
        await connection.execute(insert(journal).values(**entry, reason=reason, **author_parameters(principal)))
    await _clear_idempotent_responses(connection, list_path(resource), unique_id, token)
    await _pseudonymize_audit(connection, resource, unique_id, token)
    await _redact_changes(connection, resource, unique_id, token, hospitals)
    await connection.execute(DENY_ERASURE)
    return len(removed)


_NUMBER_CHANGES = select(func.public.number_changes(literal_column(str(NUMBERING_BATCH_SIZE))))


async def _delete_pairs(connection: Connection, patient_id: str) -> None:
    """Delete the pairs of a patient that may be duplicates, and the patient's id from the queue of comparisons."""
    pair = duplicates.c
    has_patient = or_(pair.one_id == patient_id, pair.other_id == patient_id, pair.through_id == patient_id)
    await connection.execute(delete(duplicates).where(has_patient))
    await connection.execute(delete(pending_comparisons).where(pending_comparisons.c.patient_id == patient_id))
    await connection.execute(delete(duplicate_scans).where(duplicate_scans.c.last_id == patient_id))


_SELECT_LAST_HOSPITALS = (
    select(journal.c.record.op("->")("hospital_ids"))
    .where(journal.c.record.is_not(None))
    .order_by(journal.c.version.desc())
    .limit(1)
)


async def _number_changes(connection: Connection) -> None:
    """Number all pending changes, and keep other readers from numbering until the transaction ends."""
    await connection.execute(select(func.pg_advisory_xact_lock(NUMBERING_LOCK_KEY)))
    while (await connection.execute(_NUMBER_CHANGES)).scalar_one() == NUMBERING_BATCH_SIZE:
        pass


async def _redact_changes(
    connection: Connection, resource: str, unique_id: str, token: str, hospitals: list[str] | None
) -> None:
    """Remove the record's id from the numbered changes of the feed, except where clients need it to erase their copies.

    They need it in the new change that reports the erasure, which clients of `hospitals` get, the hospitals that the
    patient was last linked to. Clients of other hospitals need it in the change that took the patient away from them,
    which they may not have read yet. These changes keep the id until they expire.
    """
    numbered, of_hospital = changes.c, hospital_changes.c
    is_about_record = (func.coalesce(numbered.source, numbered.resource) == resource, numbered.unique_id == unique_id)
    positions = list((await connection.execute(select(numbered.position).where(*is_about_record))).scalars())
    is_listed = of_hospital.position == any_(bindparam("positions", positions, ARRAY(BigInteger)))
    took_away = and_(
        of_hospital.before,
        of_hospital.after.is_not(true()),
        of_hospital.hospital_id != all_(bindparam("hospitals", hospitals or [], ARRAY(ID_TEXT))),
    )
    await connection.execute(delete(hospital_changes).where(is_listed, not_(took_away)))
    is_kept = exists().where(of_hospital.position == numbered.position)
    await connection.execute(
        update(changes)
        .where(numbered.position == any_(bindparam("positions", positions, ARRAY(BigInteger))), not_(is_kept))
        .values(unique_id=null())
    )
    pending = changes_pending.c
    await connection.execute(
        update(changes_pending)
        .where(pending.resource == resource, pending.unique_id == token)
        .values(erased_id=unique_id, erased_hospitals=hospitals)
    )


async def _pseudonymize_audit(connection: Connection, resource: str, unique_id: str, token: str) -> None:
    """Replace the record's id with the token in the audit.

    The audit still contains every access to the record, but no longer identifies the record. The reasons that were
    given for these accesses are removed.
    """
    ids = audit.c.ids
    is_about_record = (audit.c.resource == resource, ids.contains([unique_id]))
    pseudonymized_ids = func.array_replace(ids, unique_id, token)
    await connection.execute(update(audit).where(*is_about_record).values(ids=pseudonymized_ids, reason=null()))


async def _clear_idempotent_responses(connection: Connection, path: str, unique_id: str, token: str) -> None:
    """Remove the stored responses that contain the erased record.

    The idempotency keys of the requests that created the record are kept. Otherwise, sending such a request again would
    create another record.
    """
    columns = idempotency_keys.c
    is_on_record_path = columns.path.startswith(f"{path}{unique_id}/", autoescape=True)
    await connection.execute(delete(idempotency_keys).where(is_on_record_path))
    created_record = (columns.path == path, columns.unique_id == unique_id)
    await connection.execute(
        update(idempotency_keys).where(*created_record).values(unique_id=token, document=null(), fingerprint=b"")
    )


async def _redact_profile_links(connection: Connection, profile_id: str, token: str) -> list[list[str]]:
    """Replace an erased profile's id with the token in the journal entries of the patients that had this profile.

    Stored responses that contain the profile are cleared. Return `[hash, hash of the new content]`, both in
    hexadecimal, for each redacted entry, so that a later change to the entry can be detected.

    A redacted entry keeps the hash of its original content, because the hash chain was computed from this hash. The
    entry's salt is removed, so that nobody can use the kept hash to test guesses of the removed id.
    """
    patients = Patient.__tablename__
    record = journal.c.record
    fields = (
        func.json_each(record).table_valued("key", "value", with_ordinality="ordinal", name="field").render_derived()
    )
    value = case((fields.c.key == "profile_id", func.to_json(cast(token, Text))), else_=fields.c.value)
    redacted_record = select(
        func.json_object_agg(fields.c.key, aggregate_order_by(value, fields.c.ordinal))
    ).scalar_subquery()
    links_to_profile = (journal.c.resource == patients, record.op("->>")("profile_id") == profile_id)
    kept_hash = func.json_build_object("content", original_content_hash())
    redact_statement = (
        update(journal).where(*links_to_profile).values(record=redacted_record, erasure=kept_hash, salt=null())
    )
    redact_returning_hashes = redact_statement.returning(hex_text(journal.c.hash), hex_text(content_hash(journal)))
    hashes = sorted(map(list, await connection.execute(redact_returning_hashes)))
    columns = idempotency_keys.c
    contains_profile = cast(columns.document, JSONB)["patient_profile"]["unique_id"].astext == profile_id
    clear_responses_statement = (
        update(idempotency_keys)
        .where(columns.path.startswith(router_prefix(patients)), contains_profile)
        .values(document=null())
    )
    await connection.execute(clear_responses_statement)
    return hashes
