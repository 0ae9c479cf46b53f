"""The proof that the journal tells the truth: each record is what its newest entry says, and its chain is whole."""

from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, case, cast, func, literal_column, or_, select
from sqlalchemy.dialects.postgresql import JSONB, distinct_on
from sqlalchemy.ext.asyncio import AsyncConnection

from app.journal import chain
from app.journal.entries import state
from app.models import journal
from app.resource.repository import Repository

MOST_LISTED = 20
"""Flaws of a resource: after a restore that went wrong each record has one."""


class Flaw(NamedTuple):
    """A record of which the journal does not tell the truth."""

    unique_id: str
    what: str


class Verdict(NamedTuple):
    """What verifying one resource came to."""

    records: int
    entries: int
    flaws: list[Flaw]
    """The first ones."""
    flawed: int
    """How many there are, of which a record may have two."""


async def verify(connection: AsyncConnection, repository: type[Repository]) -> Verdict:
    """Compare all records of a resource, in one statement's snapshot, with the journal."""
    table = repository.table
    now = select(
        table.c.unique_id, table.c.version, cast(state(table, table, repository.links), JSONB).label("record")
    ).cte("now")
    entries = select(journal).where(journal.c.resource == table.name).cte("entries").prefix_with("NOT MATERIALIZED")
    newest = (
        select(entries.c.unique_id, entries.c.version, cast(entries.c.record, JSONB).label("record"))
        .ext(distinct_on(entries.c.unique_id))
        .order_by(entries.c.unique_id, entries.c.version.desc())
        .cte("newest")
    )

    def flaw(condition: ColumnElement[bool], what: str) -> tuple[ColumnElement[bool], ColumnElement[str]]:
        return condition, literal_column(f"'{what}'")

    kinds = (
        flaw(newest.c.unique_id.is_(None), "is not in the journal"),
        flaw(and_(now.c.unique_id.is_(None), newest.c.record.is_not(None)), "is in the journal only"),
        flaw(and_(now.c.unique_id.is_not(None), newest.c.record.is_(None)), "was deleted, says the journal"),
        flaw(now.c.version != newest.c.version, "has another version than its newest entry"),
        flaw(now.c.record != newest.c.record, "is not what its newest entry says"),
    )
    compared = (
        select(func.coalesce(now.c.unique_id, newest.c.unique_id), case(*kinds))
        .select_from(now.join(newest, now.c.unique_id == newest.c.unique_id, full=True))
        .where(or_(*(condition for condition, _ in kinds)))
    )
    broken = chain.flaws(table.name).subquery("broken")
    # counted before the limit: each row has the number of all
    found = compared.union_all(select(*broken.c)).subquery()
    flaws = (await connection.execute(select(*found.c, func.count().over()).limit(MOST_LISTED))).all()
    records = (await connection.execute(select(func.count()).select_from(table))).scalar_one()
    written = (await connection.execute(select(func.count()).select_from(entries))).scalar_one()
    return Verdict(records, written, [Flaw(*row[:2]) for row in flaws], flaws[0][2] if flaws else 0)
