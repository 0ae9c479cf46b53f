"""The hash chains of the journal: checks that they are intact, and computes the journal head.

The journal head contains a digest of the journal. Operators keep the head elsewhere, to detect later changes to the
journal.
"""

import asyncio
import re
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple, Self

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    DateTime,
    FromClause,
    LargeBinary,
    Select,
    Text,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
    text,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by, distinct_on

from app.db.connection import Connection
from app.models import journal
from app.records.journal_hash import content_hash, epoch_microseconds, hex_text

TRANSACTION_POLL_SECONDS = 0.1
"""Seconds between the checks with which `read_journal_head` waits for running transactions to end."""
_DIGEST_PATTERN = "[0-9a-f]{64}"
_HASH_PATTERN = f"^{_DIGEST_PATTERN}$"


_KEPT_CONTENT_HASH = journal.c.erasure.op("->>", return_type=Text())("content")
"""SQL expression for the hash, in hexadecimal, of a redacted entry's original content. It is null for other entries."""
_IS_ERASURE = journal.c.action == literal_column("'erased'")


def _erasure_elements(name: str, entry: FromClause = journal) -> Any:
    """Return the elements of the list `name` in the journal entry of an erasure, as rows.

    `name` is `removed` or `redacted`. An element of `removed` is `[time, hash]` of a removed entry. An element of
    `redacted` is `[hash, hash of the new content]` of a redacted entry.
    """
    elements = func.json_array_elements(entry.c.erasure.op("->")(name))
    return elements.table_valued("value", with_ordinality="ordinal", name=name).render_derived()


def _element_text(array: ColumnElement[Any], index: int) -> ColumnElement[str]:
    return array.op("->>", return_type=Text())(literal_column(str(index)))


def select_discrepancies(resource: str) -> Select[Any]:
    """Return a statement that selects the first invalid journal entry of each record of a resource.

    For each such record, the statement returns the `unique_id` and a description of the error.
    """
    kept_hash = case(
        (
            _KEPT_CONTENT_HASH.regexp_match(_HASH_PATTERN),
            func.decode(_KEPT_CONTENT_HASH, literal_column("'hex'"), type_=LargeBinary),
        )
    )
    # the token of the erased patient or profile
    patient_id = journal.c.erasure.op("->>", return_type=Text())("by")
    profile_id = journal.c.record.op("->>", return_type=Text())("profile_id")
    entries = (
        select(
            journal.c.unique_id,
            journal.c.version,
            journal.c.hash,
            func.coalesce(kept_hash, content_hash(journal)).label("content"),
            case((_KEPT_CONTENT_HASH.is_not(None), func.coalesce(patient_id, profile_id, ""))).label("redacted_by"),
            case((_KEPT_CONTENT_HASH.is_not(None), hex_text(content_hash(journal)))).label("says"),
        )
        .where(journal.c.resource == resource)
        .offset(literal_column("0"))  # makes the sort below carry hashes, not records
        .subquery("entries")
    )

    def previous_value(column: ColumnElement[Any]) -> ColumnElement[Any]:
        return func.lag(column).over(partition_by=entries.c.unique_id, order_by=entries.c.version)

    previous = func.coalesce(previous_value(entries.c.hash), literal(b"")).label("previous")
    chained = select(*entries.c, previous_value(entries.c.version).label("earlier"), previous).subquery("chained")
    entry = chained.c
    redactions = _erasure_elements("redacted")
    permitted_redactions = (
        select(journal.c.unique_id, *(_element_text(redactions.c.value, index) for index in (0, 1)))
        .select_from(journal.join(redactions, literal_column("true")))
        .where(_IS_ERASURE)
    )
    version = cast(entry.version, Text)
    checks = (
        (entry.version != entry.earlier + literal_column("1"), "lacks the version before " + version),
        (
            and_(
                entry.redacted_by.is_not(None),
                not_(tuple_(entry.redacted_by, hex_text(entry.hash), entry.says).in_(permitted_redactions)),
            ),
            "was redacted in version " + version + " without an erasure, or changed since",
        ),
        (
            entry.hash != func.sha256(entry.previous.op("||")(entry.content)),
            case(
                (entry.earlier.is_(None), "has lost versions before " + version + ", or that version was altered"),
                else_="has a version " + version + " that was altered",
            ),
        ),
    )
    return (
        select(entry.unique_id, case(*checks).label("what"))
        .ext(distinct_on(entry.unique_id))
        .where(or_(*(condition for condition, _ in checks)))
        .order_by(entry.unique_id, entry.version)
    )


class ErasureCounts(NamedTuple):
    """The numbers of records and journal entries that erasures have affected, according to the journal itself."""

    erased_records: int
    removed_entries: int
    """Number of journal entries of erased records that were removed."""
    redacted_entries: int
    """Number of journal entries of other records that mentioned an erased record and were redacted."""


async def count_erasures(connection: Connection) -> ErasureCounts:
    """Count the erased records and the journal entries that can no longer be verified because of erasures."""
    removed = func.json_array_length(journal.c.erasure.op("->")("removed"))
    counts = select(
        func.count().filter(_IS_ERASURE),
        func.coalesce(func.sum(removed).filter(_IS_ERASURE), 0),
        func.count().filter(_KEPT_CONTENT_HASH.is_not(None)),
    ).where(or_(_IS_ERASURE, journal.c.erasure.is_not(None)))
    return ErasureCounts(*(await connection.execute(counts)).one())


class MalformedJournalHeadError(Exception):
    """The text is not a line that the command `journal head` printed. The message says what such a line contains."""


class JournalHead(NamedTuple):
    """The state of the journal at a point in time.

    It consists of the time, the number of entries at that time, and one digest of the newest entries of all records.
    """

    time: datetime
    entry_count: int
    digest: str

    @classmethod
    def parse(cls, line: str) -> Self:
        """Parse a line that has the format of `str(journal_head)` and return the journal head.

        Raises:
            MalformedJournalHeadError: the line has a different format.
        """
        match = re.fullmatch(
            f"(?P<time>\\S+[+]00:00) (?P<entries>[0-9]{{1,18}}) (?P<digest>{_DIGEST_PATTERN})", line.strip()
        )
        with suppress(ValueError):
            if match is not None:
                return cls(datetime.fromisoformat(match["time"]), int(match["entries"]), match["digest"])
        raise MalformedJournalHeadError(
            "This is not a line from `patients-api journal head`: a time, a number of entries and a digest."
        )

    def __str__(self) -> str:
        return f"{self.time.isoformat()} {self.entry_count} {self.digest}"


_TIME_PARAMETER = bindparam("time", type_=DateTime(timezone=True))


def _head_statement() -> Select[Any]:
    """Return a statement that computes the journal head at `:time`.

    The statement returns three values: the number of entries that existed at that time, their digest, and the number of
    these entries that have since been removed by erasures. The first number and the digest include the removed entries,
    because the journal entry of an erasure lists the times and hashes of the entries that were removed.
    """
    existed_then = journal.c.time <= _TIME_PARAMETER
    newest_hashes = (
        select(journal.c.hash)
        .ext(distinct_on(journal.c.resource, journal.c.unique_id))
        .where(existed_then)
        .order_by(journal.c.resource, journal.c.unique_id, journal.c.version.desc())
        .subquery()
    )
    removed_entries = _entries_removed_since()
    last_removed_hashes = (
        select(func.decode(removed_entries.c.hash, literal_column("'hex'"), type_=LargeBinary))
        .ext(distinct_on(removed_entries.c.unique_id))
        .order_by(removed_entries.c.unique_id, removed_entries.c.ordinal.desc())
        .subquery()
    )
    heads = union_all(select(newest_hashes.c[0]), select(last_removed_hashes.c[0])).subquery("heads")
    (head_hash,) = heads.c
    # grouped by first byte, because the hashes of a few million records together would be too large for one value
    first_byte = func.substring(head_hash, literal_column("1"), literal_column("1"), type_=LargeBinary).label("part")
    digests_by_first_byte = (
        select(
            first_byte,
            func.sha256(func.string_agg(head_hash, aggregate_order_by(literal(b""), head_hash))).label("digest"),
        )
        .group_by(first_byte)
        .subquery("parts")
    )
    joined_digests = func.string_agg(
        digests_by_first_byte.c.digest,
        aggregate_order_by(literal(b""), digests_by_first_byte.c.part),
        type_=LargeBinary,
    )
    removed_count = select(func.count()).select_from(removed_entries).scalar_subquery()
    present_count = select(func.count()).select_from(journal).where(existed_then).scalar_subquery()
    return select(
        present_count + removed_count, hex_text(func.sha256(func.coalesce(joined_digests, literal(b"")))), removed_count
    ).select_from(digests_by_first_byte)


def _entries_removed_since() -> CTE:
    """Return a CTE with the entries that existed at `:time` and have since been removed by erasures."""
    removed = _erasure_elements("removed")
    time, entry = (removed.c.value.op("->>", return_type=Text())(literal_column(index)) for index in ("0", "1"))
    return (
        select(journal.c.unique_id, removed.c.ordinal, entry.label("hash"))
        .select_from(journal.join(removed, literal_column("true")))
        .where(
            _IS_ERASURE, journal.c.time > _TIME_PARAMETER, cast(time, BigInteger) <= epoch_microseconds(_TIME_PARAMETER)
        )
        .cte("gone")
    )


async def read_journal_head(connection: Connection) -> JournalHead:
    """Return the current journal head.

    `connection` must not be in a transaction, so that each statement sees everything that was committed before the
    statement began. This function waits until the transactions that are running when it is called have ended. These
    transactions may have written entries that have earlier timestamps but are not visible yet.
    """
    time: datetime = (await connection.execute(select(func.clock_timestamp()))).scalar_one()
    current_transaction_id = (await connection.execute(text("SELECT pg_current_xact_id()::text"))).scalar_one()
    transactions_ended = text("SELECT pg_snapshot_xmin(pg_current_snapshot()) > CAST(CAST(:until AS text) AS xid8)")
    while not (await connection.execute(transactions_ended, {"until": current_transaction_id})).scalar_one():  # noqa: ASYNC110  # PostgreSQL offers no event
        await asyncio.sleep(TRANSACTION_POLL_SECONDS)
    journal_head, _ = await read_journal_head_at(connection, time)
    return journal_head


async def read_journal_head_at(connection: Connection, time: datetime) -> tuple[JournalHead, int]:
    """Return the journal head at `time`, and the number of its entries that have since been removed by erasures."""
    entries, digest, removed = (await connection.execute(_head_statement(), {"time": time})).one()
    return JournalHead(time, entries, digest), removed
