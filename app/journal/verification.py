"""Verifies the journal: each record must equal its newest entry, and the hash chain of its entries must be intact."""

from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, case, cast, func, literal_column, or_, select
from sqlalchemy.dialects.postgresql import JSONB, distinct_on

from app.db.connection import Connection
from app.journal import chain
from app.models import journal
from app.records.repository import Repository
from app.statements.journal_entries import record_snapshot

MAX_LISTED_DISCREPANCIES = 20
"""Maximum number of discrepancies that are listed per resource. The list needs a limit, because after a failed restore
every record may have a discrepancy."""


class Discrepancy(NamedTuple):
    """A record that does not agree with its journal entries, and a description of the difference."""

    unique_id: str
    description: str


class VerificationResult(NamedTuple):
    """The result of verifying the records and journal entries of one resource."""

    record_count: int
    entry_count: int
    discrepancies: list[Discrepancy]
    """The first discrepancies, up to `MAX_LISTED_DISCREPANCIES`."""
    discrepancy_count: int
    """Number of all discrepancies. A record may have two: one in its data and one in its hash chain."""


async def verify_journal(connection: Connection, repository_class: type[Repository]) -> VerificationResult:
    """Compare all records of a resource with their newest journal entries, and verify the hash chains of the entries.

    One statement finds all discrepancies, so that records and entries are read from the same database snapshot.
    """
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
        check(and_(current.c.unique_id.is_(None), newest.c.record.is_not(None)), "exists only in the journal"),
        check(
            and_(current.c.unique_id.is_not(None), newest.c.record.is_(None)), "was deleted according to the journal"
        ),
        check(current.c.version != newest.c.version, "has a different version than its newest entry"),
        check(current.c.record != newest.c.record, "differs from its newest entry"),
    )
    mismatches = (
        select(func.coalesce(current.c.unique_id, newest.c.unique_id), case(*checks))
        .select_from(current.join(newest, current.c.unique_id == newest.c.unique_id, full=True))
        .where(or_(*(condition for condition, _ in checks)))
    )
    broken_chains = chain.select_discrepancies(table.name).subquery("broken")
    # the window function counts all rows before the limit applies
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
