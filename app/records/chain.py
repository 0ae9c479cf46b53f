"""The chains of the journal's entries: whether they are whole, and a digest of them all to be kept elsewhere."""

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
from sqlalchemy.ext.asyncio import AsyncConnection

from app.models import Profile, journal
from app.models.journal import HASHED_COLUMNS

TRANSACTION_POLL_SECONDS = 0.1
"""Between two questions whether transactions have ended."""
_DIGEST_PATTERN = "[0-9a-f]{64}"
_HASH_PATTERN = f"^{_DIGEST_PATTERN}$"


def content_hash(entry: FromClause) -> ColumnElement[bytes]:
    """The hash of what an entry says."""
    return func.journal_content(*(entry.c[name] for name in HASHED_COLUMNS), type_=LargeBinary)


def hex_text(value: ColumnElement[bytes]) -> ColumnElement[str]:
    """A hash as JSON has it."""
    return func.encode(value, literal_column("'hex'"), type_=Text)


def epoch_microseconds(time: ColumnElement[datetime]) -> ColumnElement[int]:
    """A moment as JSON has it: since 1970, in UTC."""
    return cast(func.extract("epoch", time) * literal_column("1000000"), BigInteger)


_KEPT_CONTENT_HASH = journal.c.erasure.op("->>", return_type=Text())("content")
"""Of an entry that an erasure has redacted: the hash of what it said, in hexadecimal."""
_IS_ERASURE = journal.c.action == literal_column("'erased'")


def _erasure_elements(name: str, entry: FromClause = journal) -> Any:
    """What an erasure's entry lists: `removed`, a time and a hash each; `redacted`, a hash and that of the content."""
    elements = func.json_array_elements(entry.c.erasure.op("->")(name))
    return elements.table_valued("value", with_ordinality="place", name=name).render_derived()


def _element_text(array: ColumnElement[Any], index: int) -> ColumnElement[str]:
    return array.op("->>", return_type=Text())(literal_column(str(index)))


def select_discrepancies(resource: str) -> Select[Any]:
    """The first entry of each record's chain that is wrong: the record's `unique_id`, and what is wrong, in words."""
    kept_hash = case(
        (
            _KEPT_CONTENT_HASH.regexp_match(_HASH_PATTERN),
            func.decode(_KEPT_CONTENT_HASH, literal_column("'hex'"), type_=LargeBinary),
        )
    )
    profile_id = journal.c.record.op("->>", return_type=Text())("profile_id")
    entries = (
        select(
            journal.c.unique_id,
            journal.c.version,
            journal.c.hash,
            func.coalesce(kept_hash, content_hash(journal)).label("content"),
            case((_KEPT_CONTENT_HASH.is_not(None), func.coalesce(profile_id, ""))).label("redacted_by"),
            case((_KEPT_CONTENT_HASH.is_not(None), hex_text(content_hash(journal)))).label("says"),
        )
        .where(journal.c.resource == resource)
        .offset(literal_column("0"))  # so that hashes are sorted below, and no records
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
        .where(_IS_ERASURE, journal.c.resource == Profile.__tablename__)
    )
    version = cast(entry.version, Text)
    checks = (
        (entry.version != entry.earlier + literal_column("1"), "lacks the version before " + version),
        (
            and_(
                entry.redacted_by.is_not(None),
                not_(tuple_(entry.redacted_by, hex_text(entry.hash), entry.says).in_(permitted_redactions)),
            ),
            "was redacted in version " + version + " by no erasure, or changed since",
        ),
        (
            entry.hash != func.sha256(entry.previous.op("||")(entry.content)),
            case(
                (entry.earlier.is_(None), "has lost versions before " + version + ", or that is not as it was written"),
                else_="has a version " + version + " that is not as it was written",
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
    """What erasures have taken from the journal, by what it says itself."""

    erased_records: int
    removed_entries: int
    """Entries of these."""
    redacted_entries: int
    """Entries of other records, of which a part was replaced."""


async def count_erasures(connection: AsyncConnection) -> ErasureCounts:
    """Count what is not to be verified, as it is gone by an erasure."""
    removed = func.json_array_length(journal.c.erasure.op("->")("removed"))
    counts = select(
        func.count().filter(_IS_ERASURE),
        func.coalesce(func.sum(removed).filter(_IS_ERASURE), 0),
        func.count().filter(_KEPT_CONTENT_HASH.is_not(None)),
    ).where(or_(_IS_ERASURE, journal.c.erasure.is_not(None)))
    return ErasureCounts(*(await connection.execute(counts)).one())


class MalformedJournalHeadError(Exception):
    """A text is not a line of `journal head`; the message tells the operator what one looks like."""


class JournalHead(NamedTuple):
    """The journal at a moment: how many entries it had, and a digest of the newest of each record."""

    time: datetime
    entry_count: int
    digest: str

    @classmethod
    def parse(cls, line: str) -> Self:
        """Read what `str` has written.

        Raises:
            MalformedHeadError: it is something else.
        """
        match = re.fullmatch(
            f"(?P<time>\\S+[+]00:00) (?P<entries>[0-9]{{1,18}}) (?P<digest>{_DIGEST_PATTERN})", line.strip()
        )
        with suppress(ValueError):
            if match is not None:
                return cls(datetime.fromisoformat(match["time"]), int(match["entries"]), match["digest"])
        raise MalformedJournalHeadError(
            "That is no line of `patients-api journal head`: a time, a number of entries and a digest."
        )

    def __str__(self) -> str:
        return f"{self.time.isoformat()} {self.entry_count} {self.digest}"


_TIME_PARAMETER = bindparam("time", type_=DateTime(timezone=True))


def _head_statement() -> Select[Any]:
    """How many entries there were at `:time`, and the digest; as many as are removed since, by what erasures list."""
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
        .order_by(removed_entries.c.unique_id, removed_entries.c.place.desc())
        .subquery()
    )
    heads = union_all(select(newest_hashes.c[0]), select(last_removed_hashes.c[0])).subquery("heads")
    (head_hash,) = heads.c
    # by their first bytes: all in one value would be too large for a value, with a few million records
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
    """The entries of `:time` that erasures have removed since."""
    removed = _erasure_elements("removed")
    time, entry = (removed.c.value.op("->>", return_type=Text())(literal_column(index)) for index in ("0", "1"))
    return (
        select(journal.c.unique_id, removed.c.place, entry.label("hash"))
        .select_from(journal.join(removed, literal_column("true")))
        .where(
            _IS_ERASURE, journal.c.time > _TIME_PARAMETER, cast(time, BigInteger) <= epoch_microseconds(_TIME_PARAMETER)
        )
        .cte("gone")
    )


async def read_journal_head(connection: AsyncConnection) -> JournalHead:
    """The journal as it is now. `connection` is in no transaction: each statement sees what was committed before it.

    It waits for the transactions under way: they may have written entries of before now that nobody sees yet.
    """
    time: datetime = (await connection.execute(select(func.clock_timestamp()))).scalar_one()
    current_transaction_id = (await connection.execute(text("SELECT pg_current_xact_id()::text"))).scalar_one()
    transactions_ended = text("SELECT pg_snapshot_xmin(pg_current_snapshot()) > CAST(CAST(:until AS text) AS xid8)")
    while not (await connection.execute(transactions_ended, {"until": current_transaction_id})).scalar_one():  # noqa: ASYNC110  # of PostgreSQL's
        await asyncio.sleep(TRANSACTION_POLL_SECONDS)
    journal_head, _ = await read_journal_head_at(connection, time)
    return journal_head


async def read_journal_head_at(connection: AsyncConnection, time: datetime) -> tuple[JournalHead, int]:
    """The journal as it was at a moment, and how many entries of then erasures have removed since."""
    entries, digest, removed = (await connection.execute(_head_statement(), {"time": time})).one()
    return JournalHead(time, entries, digest), removed
