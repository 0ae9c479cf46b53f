"""What the database knows about the terms of a search text before the search."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    CompoundSelect,
    Executable,
    Integer,
    Text,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    union_all,
)
from sqlalchemy.sql.selectable import TableValuedAlias

from app.db.base import FOLDED_TEXT, ID_TEXT
from app.db.connection import Result
from app.listing.keyset import has_word, starts_with
from app.listing.listing import MAX_CACHED_STATEMENTS, ListShape
from app.models import Hospital
from app.search.conditions import INDEXED_PLACE_COLUMNS, PATIENT_COLUMNS, is_place
from app.search.parser import MIN_ID_PART_CHARACTERS, Term
from app.search.terms import Probe

Execute = Callable[[Executable, Mapping[str, Any]], Awaitable[Result]]
"""Executes a statement for the principal of a list."""
MAX_IDS_PER_TERM = 100
"""Maximum number of ids that begin or end with a term."""


async def probe(execute: Execute, list_shape: ListShape, terms: Sequence[Term]) -> list[Probe]:
    """Return what the database knows about each term. Only visible patients are considered."""
    parameters: Mapping[str, Any] = {
        "places": [index for index, term in enumerate(terms) if term.word],
        "words": [term.word for term in terms if term.word],
        "id_places": [index for index, term in enumerate(terms) for _ in term.identifiers],
        "identifiers": [spelling for term in terms for spelling in term.identifiers],
    }
    rows = (await execute(_probe_statement(list_shape._replace(filters=())), parameters)).all()
    context = {index for index, unique_id in rows if unique_id is None}
    ids: dict[int, list[str]] = {}
    for index, unique_id in rows:
        if unique_id is not None:
            ids.setdefault(index, []).append(unique_id)
    return [Probe(index in context, tuple(ids.get(index, ()))) for index in range(len(terms))]


@lru_cache(MAX_CACHED_STATEMENTS)
def _probe_statement(list_shape: ListShape) -> CompoundSelect[Any]:
    """Return the statement that selects the index of a term and an id, or no id if the word is known from elsewhere."""
    typed = _unnest("places", "words", "word")
    context = select(typed.c.place, literal_column("NULL", Text)).where(
        func.char_length(typed.c.word) >= literal_column("3"),
        or_(
            *(_is_known_place(list_shape, name, typed.c.word) for name in INDEXED_PLACE_COLUMNS),
            select(literal_column("1"))
            .select_from(Hospital.__table__)
            .where(
                or_(
                    has_word(Hospital.__table__.c.hospital_search, typed.c.word),
                    Hospital.__table__.c.unique_id == typed.c.word,
                )
            )
            .exists(),
        ),
    )
    given = _unnest("id_places", "identifiers", "identifier")
    identifier = given.c.identifier
    unique_id = PATIENT_COLUMNS.unique_id
    reversed_id, reversed_identifier = (func.reverse(func.lower(each)) for each in (unique_id, identifier))
    is_long = func.char_length(identifier) >= literal_column(str(MIN_ID_PART_CHARACTERS))
    ids = [
        select(given.c.place, matching.c.unique_id).select_from(given.join(matching, literal_column("true")))
        for matching in (
            _visible_ids(list_shape, reversed_id == reversed_identifier),
            _visible_ids(list_shape, starts_with(unique_id, identifier), is_long),
            _visible_ids(list_shape, starts_with(reversed_id, reversed_identifier), is_long),
        )
    ]
    return union_all(context, *ids)


def _unnest(places: str, values: str, column: str) -> TableValuedAlias:
    arrays = bindparam(places, type_=ARRAY(Integer)), bindparam(values, type_=ARRAY(ID_TEXT))
    return func.unnest(*arrays).table_valued("place", column, name=f"typed_{column}").render_derived()


def _is_known_place(list_shape: ListShape, name: str, word: ColumnElement[str]) -> ColumnElement[bool]:
    is_there = is_place(name, func.fold(word, type_=FOLDED_TEXT))
    visible = list_shape.conditions
    return (
        select(literal_column("1"))
        .select_from(PATIENT_COLUMNS.unique_id.table)
        .where(*visible, *list_shape.without_index_use([is_there]))
        .exists()
    )


def _visible_ids(list_shape: ListShape, condition: ColumnElement[bool], *preconditions: ColumnElement[bool]) -> Any:
    ids = select(PATIENT_COLUMNS.unique_id).where(
        *preconditions, *list_shape.conditions, *list_shape.without_index_use([condition])
    )
    return ids.order_by(PATIENT_COLUMNS.unique_id).limit(literal_column(str(MAX_IDS_PER_TERM))).lateral()
