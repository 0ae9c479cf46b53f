"""How many records a filter or a search finds, told only as far as the audit can say whom the number tells of.

A count that is no look at anybody would be a way around the audit: filters find a date of birth by bisection. So each
number depends on no other records than those whose ids are put on record with it. Up to `COUNTED_EXACTLY` these are all
that were found. Beyond, the number is estimated from a sample of one more than that, those with the lowest hashes of
their ids: the larger the list, the closer together the hashes lie (k minimum values; Bar-Yossef et al., 2002).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Select, func, literal_column, select

MAX_EXACT_COUNT = 1000
"""Records of a filtered list that are counted one by one; beyond, the estimate is some 3 % away, one standard error."""
ESTIMATE_SIGNIFICANT_DIGITS = 2
"""Of an estimate; more would pretend to know them."""
HASH_SPACE_SIZE = 2**64


class RecordCount(NamedTuple):
    """How many records a list has."""

    number: int
    ids: Sequence[str] = ()
    """Of a list that is filtered or searched, those that the number tells of: whoever else there is changes nothing."""


def sample_statement(rows: Select[Any]) -> Select[Any]:
    """Hashes and ids of the records by which to count those whose `unique_id` is selected by `rows`."""
    matching_rows = rows.subquery("found")
    id_hash = func.hashtextextended(matching_rows.c.unique_id, literal_column("0"), type_=BigInteger).label("hash")
    return select(id_hash, matching_rows.c.unique_id).order_by(id_hash).limit(literal_column(str(MAX_EXACT_COUNT + 1)))


def count_from_sample(sampled: Sequence[tuple[int, str]]) -> RecordCount:
    """What a statement of `sample` found comes to."""
    ids = [unique_id for _, unique_id in sampled]
    if len(sampled) <= MAX_EXACT_COUNT:
        return RecordCount(len(sampled), ids)
    highest_hash, _ = sampled[-1]  # of signed hashes
    share = (highest_hash + HASH_SPACE_SIZE // 2 + 1) / HASH_SPACE_SIZE
    estimate = int(MAX_EXACT_COUNT / share)
    return RecordCount(max(MAX_EXACT_COUNT, round(estimate, ESTIMATE_SIGNIFICANT_DIGITS - len(str(estimate)))), ids)
