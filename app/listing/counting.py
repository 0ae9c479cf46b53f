"""Counts of the records that match a filter or a search; each count depends only on records that are audited with it.

An unaudited count would bypass the audit: filters can find a date of birth by bisection. So each number depends only on
the records whose ids are recorded with it. Up to `MAX_EXACT_COUNT` these are all matching records. Beyond that, the
number is estimated from a sample of `MAX_EXACT_COUNT` + 1 records, those whose ids have the lowest hashes: the longer
the list, the closer together the hashes are (k minimum values; Bar-Yossef et al., 2002).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Select, func, literal_column, select

MAX_EXACT_COUNT = 1000
"""Maximum number of records of a filtered list that are counted exactly; beyond it the count is an estimate.

The standard error of the estimate is about 3 %.
"""
ESTIMATE_SIGNIFICANT_DIGITS = 2
"""Significant digits of an estimate; more would suggest a precision that it does not have."""
HASH_SPACE_SIZE = 2**64


class RecordCount(NamedTuple):
    """The number of records in a list."""

    number: int
    ids: Sequence[str] = ()
    """Ids of the records that the number of a filtered or searched list depends on; no other record affects it."""


def sample_statement(rows: Select[Any]) -> Select[Any]:
    """Return the statement that selects the sample for `count_from_sample`.

    `rows` selects the `unique_id` of all matching records. The sample has the columns `hash` and `unique_id`, and up to
    `MAX_EXACT_COUNT` + 1 rows in the order of the hash.
    """
    matching_rows = rows.subquery("found")
    id_hash = func.hashtextextended(matching_rows.c.unique_id, literal_column("0"), type_=BigInteger).label("hash")
    return select(id_hash, matching_rows.c.unique_id).order_by(id_hash).limit(literal_column(str(MAX_EXACT_COUNT + 1)))


def count_from_sample(sampled: Sequence[tuple[int, str]]) -> RecordCount:
    """Return the count for the rows of a `sample_statement`: exact if it found them all, else an estimate."""
    ids = [unique_id for _, unique_id in sampled]
    if len(sampled) <= MAX_EXACT_COUNT:
        return RecordCount(len(sampled), ids)
    highest_hash, _ = sampled[-1]  # hashes are signed
    share = (highest_hash + HASH_SPACE_SIZE // 2 + 1) / HASH_SPACE_SIZE
    estimate = int(MAX_EXACT_COUNT / share)
    return RecordCount(max(MAX_EXACT_COUNT, round(estimate, ESTIMATE_SIGNIFICANT_DIGITS - len(str(estimate)))), ids)
