"""Counts of the records that match a filter or a search.

Without an audit of counts, a client could find a patient's date of birth by bisection with filters. For this reason,
each count depends only on records whose ids are audited together with the count. Up to `MAX_EXACT_COUNT`, these are all
matching records. A larger count is estimated from a sample: the `MAX_EXACT_COUNT` + 1 matching records whose ids have
the lowest hashes. The more records match, the lower the highest hash in the sample (k minimum values; Bar-Yossef et
al., 2002).
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Select, Table, func, literal_column, select

MAX_EXACT_COUNT = 1000
"""Maximum number of matching records that are counted exactly. A larger number is estimated.

The standard error of the estimate is about 3 %.
"""
ESTIMATE_SIGNIFICANT_DIGITS = 2
"""Number of significant digits in an estimate. More digits would suggest a precision that it does not have."""
HASH_SPACE_SIZE = 2**64


class RecordCount(NamedTuple):
    """The number of records in a list, with the ids of the records on which this number depends."""

    number: int
    ids: Sequence[str] = ()
    """Ids of the records on which the number of a filtered or searched list depends.

    No other record affects the number. For an unfiltered list there are no ids.
    """


def sample_statement(
    table: Table, conditions: Iterable[ColumnElement[bool]], max_exact: int = MAX_EXACT_COUNT
) -> Select[Any]:
    """Return the statement that selects a sample of the records that match all conditions, for `count_from_sample`.

    The statement selects the columns `hash` and `unique_id` of the `max_exact` + 1 records with the lowest hashes,
    ordered by hash. If fewer records match, it selects all of them.
    """
    matching_rows = select(table.c.unique_id).where(*conditions).subquery("found")
    id_hash = func.hashtextextended(matching_rows.c.unique_id, literal_column("0"), type_=BigInteger).label("hash")
    return select(id_hash, matching_rows.c.unique_id).order_by(id_hash).limit(literal_column(str(max_exact + 1)))


def count_from_sample(sampled: Sequence[tuple[int, str]], max_exact: int = MAX_EXACT_COUNT) -> RecordCount:
    """Return the number of matching records, calculated from the rows of a `sample_statement` with this `max_exact`.

    The number is exact if the sample contains all matching records. Otherwise it is an estimate.
    """
    ids = [unique_id for _, unique_id in sampled]
    if len(sampled) <= max_exact:
        return RecordCount(len(sampled), ids)
    highest_hash, _ = sampled[-1]  # a signed 64-bit integer
    share = (highest_hash + HASH_SPACE_SIZE // 2 + 1) / HASH_SPACE_SIZE
    estimate = int(max_exact / share)
    return RecordCount(max(max_exact, round(estimate, ESTIMATE_SIGNIFICANT_DIGITS - len(str(estimate)))), ids)
