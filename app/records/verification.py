"""The proof that the journal tells the truth: each record is what its newest entry says, and its chain is whole."""

from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, case, cast, func, literal_column, or_, select
from sqlalchemy.dialects.postgresql import JSONB, distinct_on
from sqlalchemy.ext.asyncio import AsyncConnection

from app.models import journal
from app.records import chain
from app.records.journal_entries import record_snapshot
from app.records.repository import Repository

MAX_LISTED_DISCREPANCIES = 20
"""Flaws of a resource: after a restore that went wrong each record has one."""


class Discrepancy(NamedTuple):
    """A record of which the journal does not tell the truth."""

    unique_id: str
    description: str


class VerificationResult(NamedTuple):
    """What verifying one resource came to."""

    record_count: int
    entry_count: int
    discrepancies: list[Discrepancy]
    """The first ones."""
    discrepancy_count: int
    """How many there are, of which a record may have two."""


async def verify_journal(connection: AsyncConnection, repository_class: type[Repository]) -> VerificationResult:
    """Compare all records of a resource, in one statement's snapshot, with the journal."""
    table = repository_class.table
    current = select(
        table.c.unique_id,
        table.c.version,
        cast(record_snapshot(table, table, repository_class.link_relations), JSONB).label("record"),
    ).cte("now")
    entries = select(journal).where(journal.c.resource == table.name).cte("entries").prefix_with("NOT MATERIALIZED")
    newest = (
        select(entries.c.unique_id, entries.c.version, cast(entries.c.record, JSONB).label("record"))
        .ext(distinct_on(entries.c.unique_id))
        .order_by(entries.c.unique_id, entries.c.version.desc())
        .cte("newest")
    )

    def check(condition: ColumnElement[bool], description: str) -> tuple[ColumnElement[bool], ColumnElement[str]]:
        return condition, literal_column(f"'{description}'")

    checks = (
        check(newest.c.unique_id.is_(None), "is not in the journal"),
        check(and_(current.c.unique_id.is_(None), newest.c.record.is_not(None)), "is in the journal only"),
        check(and_(current.c.unique_id.is_not(None), newest.c.record.is_(None)), "was deleted, says the journal"),
        check(current.c.version != newest.c.version, "has another version than its newest entry"),
        check(current.c.record != newest.c.record, "is not what its newest entry says"),
    )
    mismatches = (
        select(func.coalesce(current.c.unique_id, newest.c.unique_id), case(*checks))
        .select_from(current.join(newest, current.c.unique_id == newest.c.unique_id, full=True))
        .where(or_(*(condition for condition, _ in checks)))
    )
    broken_chains = chain.select_discrepancies(table.name).subquery("broken")
    # counted before the limit: each row has the number of all
    all_discrepancies = mismatches.union_all(select(*broken_chains.c)).subquery()
    discrepancy_rows = (
        await connection.execute(select(*all_discrepancies.c, func.count().over()).limit(MAX_LISTED_DISCREPANCIES))
    ).all()
    record_count = (await connection.execute(select(func.count()).select_from(table))).scalar_one()
    entry_count = (await connection.execute(select(func.count()).select_from(entries))).scalar_one()
    return VerificationResult(
        record_count,
        entry_count,
        [Discrepancy(*row[:2]) for row in discrepancy_rows],
        discrepancy_rows[0][2] if discrepancy_rows else 0,
    )
