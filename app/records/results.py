"""The results of reading and writing records."""

from collections.abc import Sequence
from typing import NamedTuple

from app.statements.links import LinkResult


class Record(NamedTuple):
    """A record as responses contain it: its id and its document."""

    unique_id: str
    document: str
    """The record as JSON text."""
    warnings: Sequence[str] = ()
    """What may be wrong with the record that was written."""


class WriteResult(NamedTuple):
    """The result of creating or updating a record."""

    record: Record
    """The record after the write."""
    link_result: LinkResult
    journaled: bool
    """Whether the journal accepted the entry for the write. It is true if there was nothing to write."""
