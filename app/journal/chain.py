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
from app.models.journal import HASHED

PAUSE_SECONDS = 0.1
"""Between two questions whether transactions have ended."""
_DIGEST = "[0-9a-f]{64}"
_HASH = f"^{_DIGEST}$"


def content(entry: FromClause) -> ColumnElement[bytes]:
    """The hash of what an entry says."""
    return func.journal_content(*(entry.c[name] for name in HASHED), type_=LargeBinary)


def hexadecimal(value: ColumnElement[bytes]) -> ColumnElement[str]:
    """A hash as JSON has it."""
    return func.encode(value, literal_column("'hex'"), type_=Text)


def microseconds(time: ColumnElement[datetime]) -> ColumnElement[int]:
    """A moment as JSON has it: since 1970, in UTC."""
    return cast(func.extract("epoch", time) * literal_column("1000000"), BigInteger)


_KEPT = journal.c.erasure.op("->>", return_type=Text())("content")
"""Of an entry that an erasure has redacted: the hash of what it said, in hexadecimal."""
_ERASED = journal.c.action == literal_column("'erased'")


def _listed(name: str, entry: FromClause = journal) -> Any:
    """What an erasure's entry lists: `removed`, a time and a hash each; `redacted`, a hash and that of the content."""
    elements = func.json_array_elements(entry.c.erasure.op("->")(name))
    return elements.table_valued("value", with_ordinality="place", name=name).render_derived()


def _text(array: ColumnElement[Any], place: int) -> ColumnElement[str]:
    return array.op("->>", return_type=Text())(literal_column(str(place)))


def flaws(resource: str) -> Select[Any]:
    """The first entry of each record's chain that is wrong: the record's `unique_id`, and what is wrong, in words."""
    kept = case((_KEPT.regexp_match(_HASH), func.decode(_KEPT, literal_column("'hex'"), type_=LargeBinary)))
    profile = journal.c.record.op("->>", return_type=Text())("profile_id")
    entries = (
        select(
            journal.c.unique_id,
            journal.c.version,
            journal.c.hash,
            func.coalesce(kept, content(journal)).label("content"),
            case((_KEPT.is_not(None), func.coalesce(profile, ""))).label("redacted_by"),
            case((_KEPT.is_not(None), hexadecimal(content(journal)))).label("says"),
        )
        .where(journal.c.resource == resource)
        .offset(literal_column("0"))  # so that hashes are sorted below, and no records
        .subquery("entries")
    )

    def before(column: ColumnElement[Any]) -> ColumnElement[Any]:
        return func.lag(column).over(partition_by=entries.c.unique_id, order_by=entries.c.version)

    previous = func.coalesce(before(entries.c.hash), literal(b"")).label("previous")
    chained = select(*entries.c, before(entries.c.version).label("earlier"), previous).subquery("chained")
    entry = chained.c
    redacted = _listed("redacted")
    permitted = (
        select(journal.c.unique_id, *(_text(redacted.c.value, place) for place in (0, 1)))
        .select_from(journal.join(redacted, literal_column("true")))
        .where(_ERASED, journal.c.resource == Profile.__tablename__)
    )
    version = cast(entry.version, Text)
    kinds = (
        (entry.version != entry.earlier + literal_column("1"), "lacks the version before " + version),
        (
            and_(
                entry.redacted_by.is_not(None),
                not_(tuple_(entry.redacted_by, hexadecimal(entry.hash), entry.says).in_(permitted)),
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
        select(entry.unique_id, case(*kinds).label("what"))
        .ext(distinct_on(entry.unique_id))
        .where(or_(*(condition for condition, _ in kinds)))
        .order_by(entry.unique_id, entry.version)
    )


class Erasures(NamedTuple):
    """What erasures have taken from the journal, by what it says itself."""

    records: int
    removed: int
    """Entries of these."""
    redacted: int
    """Entries of other records, of which a part was replaced."""


async def erasures(connection: AsyncConnection) -> Erasures:
    """Count what is not to be verified, as it is gone by an erasure."""
    removed = func.json_array_length(journal.c.erasure.op("->")("removed"))
    counts = select(
        func.count().filter(_ERASED),
        func.coalesce(func.sum(removed).filter(_ERASED), 0),
        func.count().filter(_KEPT.is_not(None)),
    ).where(or_(_ERASED, journal.c.erasure.is_not(None)))
    return Erasures(*(await connection.execute(counts)).one())


class MalformedHeadError(Exception):
    """A text is not a line of `journal head`; the message tells the operator what one looks like."""


class Head(NamedTuple):
    """The journal at a moment: how many entries it had, and a digest of the newest of each record."""

    time: datetime
    entries: int
    digest: str

    @classmethod
    def read(cls, line: str) -> Self:
        """Read what `str` has written.

        Raises:
            MalformedHeadError: it is something else.
        """
        form = re.fullmatch(f"(?P<time>\\S+[+]00:00) (?P<entries>[0-9]{{1,18}}) (?P<digest>{_DIGEST})", line.strip())
        with suppress(ValueError):
            if form is not None:
                return cls(datetime.fromisoformat(form["time"]), int(form["entries"]), form["digest"])
        raise MalformedHeadError(
            "That is no line of `patients-api journal head`: a time, a number of entries and a digest."
        )

    def __str__(self) -> str:
        return f"{self.time.isoformat()} {self.entries} {self.digest}"


_AT = bindparam("time", type_=DateTime(timezone=True))


def _head() -> Select[Any]:
    """How many entries there were at `:time`, and the digest; as many as are removed since, by what erasures list."""
    there = journal.c.time <= _AT
    newest = (
        select(journal.c.hash)
        .ext(distinct_on(journal.c.resource, journal.c.unique_id))
        .where(there)
        .order_by(journal.c.resource, journal.c.unique_id, journal.c.version.desc())
        .subquery()
    )
    gone = _gone()
    last = (
        select(func.decode(gone.c.hash, literal_column("'hex'"), type_=LargeBinary))
        .ext(distinct_on(gone.c.unique_id))
        .order_by(gone.c.unique_id, gone.c.place.desc())
        .subquery()
    )
    heads = union_all(select(newest.c[0]), select(last.c[0])).subquery("heads")
    (one,) = heads.c
    # by their first bytes: all in one value would be too large for a value, with a few million records
    part = func.substring(one, literal_column("1"), literal_column("1"), type_=LargeBinary).label("part")
    parts = (
        select(part, func.sha256(func.string_agg(one, aggregate_order_by(literal(b""), one))).label("digest"))
        .group_by(part)
        .subquery("parts")
    )
    whole = func.string_agg(parts.c.digest, aggregate_order_by(literal(b""), parts.c.part), type_=LargeBinary)
    removed = select(func.count()).select_from(gone).scalar_subquery()
    present = select(func.count()).select_from(journal).where(there).scalar_subquery()
    return select(present + removed, hexadecimal(func.sha256(func.coalesce(whole, literal(b"")))), removed).select_from(
        parts
    )


def _gone() -> CTE:
    """The entries of `:time` that erasures have removed since."""
    removed = _listed("removed")
    time, entry = (removed.c.value.op("->>", return_type=Text())(literal_column(place)) for place in ("0", "1"))
    return (
        select(journal.c.unique_id, removed.c.place, entry.label("hash"))
        .select_from(journal.join(removed, literal_column("true")))
        .where(_ERASED, journal.c.time > _AT, cast(time, BigInteger) <= microseconds(_AT))
        .cte("gone")
    )


async def head(connection: AsyncConnection) -> Head:
    """The journal as it is now. `connection` is in no transaction: each statement sees what was committed before it.

    It waits for the transactions under way: they may have written entries of before now that nobody sees yet.
    """
    time: datetime = (await connection.execute(select(func.clock_timestamp()))).scalar_one()
    until = (await connection.execute(text("SELECT pg_current_xact_id()::text"))).scalar_one()
    ended = text("SELECT pg_snapshot_xmin(pg_current_snapshot()) > CAST(CAST(:until AS text) AS xid8)")
    while not (await connection.execute(ended, {"until": until})).scalar_one():  # noqa: ASYNC110  # of PostgreSQL's
        await asyncio.sleep(PAUSE_SECONDS)
    then, _ = await head_at(connection, time)
    return then


async def head_at(connection: AsyncConnection, time: datetime) -> tuple[Head, int]:
    """The journal as it was at a moment, and how many entries of then erasures have removed since."""
    entries, digest, removed = (await connection.execute(_head(), {"time": time})).one()
    return Head(time, entries, digest), removed
