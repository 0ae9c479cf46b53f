"""Probes of the database that show, before a search, which meanings of its terms occur."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    CompoundSelect,
    Integer,
    Select,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import array
from sqlalchemy.sql.selectable import TableValuedAlias

from app.db.base import FOLDED_TEXT, ID_TEXT
from app.db.connection import Result, Statement, compiled_by_shape
from app.listing.keyset import has_word, starts_with
from app.listing.listing import ListShape
from app.models import Hospital, Patient, patient_identifiers
from app.patient_identifiers.finding import has_value
from app.search_scores.conditions import PATIENT_COLUMNS, PLACE_COLUMNS
from app.search_scores.terms import Probe
from app.search_text.parser import MIN_ID_PART_CHARACTERS, Term
from app.search_text.phrases import may_be_misspelled, phrases_of
from app.statements.hospital_scope import few_ids, is_in_few_ids

Execute = Callable[[Statement, Mapping[str, Any]], Awaitable[Result]]
"""Executes a statement for the principal of a list."""
MAX_IDS_PER_TERM = 100
"""Maximum number of ids that begin or end with a term."""


async def probe(
    execute: Execute, list_shape: ListShape, terms: Sequence[Term], spans: Sequence[str], scope: Collection[str] | None
) -> list[Probe]:
    """Return what the database knows about each term. Only visible patients are considered.

    `scope` is the hospital scope of the principal, or None if it is unrestricted. A patient with one of the `spans` as
    an identifier is found by each of the terms that the span consists of, as by its id.
    """
    phrases, words = list(phrases_of(terms)), [(index, term.word) for index, term in enumerate(terms) if term.word]
    identifiers = [(index, spelling) for index, term in enumerate(terms) for spelling in term.identifiers]
    parameters: dict[str, Any] = {}
    numbered = [*enumerate(spans)]
    for name, values in (("phrases", phrases), ("words", words), ("identifiers", identifiers), ("spans", numbered)):
        parameters |= {f"indexes_of_{name}": [index for index, _ in values], name: [value for _, value in values]}
    rows = await execute(_probe_statement(list_shape._replace(filters=())), parameters)
    found: dict[tuple[str, int], list[str]] = defaultdict(list)
    for kind, index, value in rows:
        if kind == "span":
            for part, term in enumerate(terms):
                if term.normalized and term.normalized in spans[index]:
                    found["id", part].append(value)
        elif kind != "hospital" or scope is None or value in scope:
            found[kind, index].append(value)
    unknown: dict[int, list[str]] = defaultdict(list)
    for index, phrase in phrases:
        if not found["place", index] and may_be_misspelled(phrase):
            unknown[index].append(phrase)
    return [
        Probe(found["place", index], found["hospital", index], found["id", index], unknown[index])
        for index in range(len(terms))
    ]


@compiled_by_shape
def _probe_statement(list_shape: ListShape) -> CompoundSelect[Any]:
    """Return the statement that selects what is known: its kind, the index of the term, and the value.

    The kinds are `place` (a town, region and so on), `hospital`, `id` (of a patient) and `span` (a patient with the
    identifier).
    """
    phrase, word, identifier, span = (_typed(name) for name in ("phrases", "words", "identifiers", "spans"))
    folded = func.fold(phrase.c.value, type_=FOLDED_TEXT)
    hospital = Hospital.__table__.c
    is_called = or_(has_word(hospital.hospital_search, word.c.value), hospital.unique_id == word.c.value)
    return union_all(
        select(literal_column("'place'"), phrase.c.index, folded).where(_is_known_place(list_shape, folded)),
        select(literal_column("'hospital'"), word.c.index, hospital.unique_id).where(
            func.char_length(word.c.value) > literal_column("2"), is_called
        ),
        *(
            select(literal_column("'id'"), identifier.c.index, matching.c.unique_id).select_from(
                identifier.join(matching, literal_column("true"))
            )
            for matching in _matching_ids(list_shape, identifier.c.value)
        ),
        select(
            literal_column("'span'"), span.c.index, (holder := _holders(list_shape, span.c.value)).c.unique_id
        ).select_from(span.join(holder, literal_column("true"))),
    )


def _typed(name: str) -> TableValuedAlias:
    arrays = bindparam(f"indexes_of_{name}", type_=ARRAY(Integer)), bindparam(name, type_=ARRAY(ID_TEXT))
    return func.unnest(*arrays).table_valued("index", "value", name=f"typed_{name}").render_derived()


def _is_known_place(list_shape: ListShape, phrase: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that a visible patient has the phrase in its address as a whole value."""
    columns = [PATIENT_COLUMNS[name] for name in PLACE_COLUMNS]
    patients = Patient.__table__
    if list_shape.is_id_lookup:  # one pass over the few patients
        values = func.unnest(array(columns)).label("value")
        return phrase.in_(select(values).select_from(patients).where(*list_shape.conditions))
    return or_(*(is_value_of_patients(list_shape, column, phrase) for column in columns))


def is_value_of_patients(
    list_shape: ListShape, column: ColumnElement[str], value: ColumnElement[str]
) -> ColumnElement[bool]:
    """Return the condition that a visible patient has the value in a column, which must have an index."""
    # not EXISTS, for which PostgreSQL would read all patients that the principal can see
    found: Select[Any] = select(literal_column("1")).select_from(Patient.__table__)
    found = found.where(column == value, *list_shape.conditions)
    return found.limit(literal_column("1")).scalar_subquery().is_not(None)


def _matching_ids(list_shape: ListShape, identifier: ColumnElement[str]) -> Iterator[Any]:
    """Yield the relations of the visible patients with this id, in any case, or with this beginning or end of an id."""
    unique_id: ColumnElement[str] = PATIENT_COLUMNS.unique_id
    visible = list_shape.conditions
    reversed_id: ColumnElement[str] = func.reverse(func.lower(unique_id))
    reversed_part = func.reverse(func.lower(identifier))
    if list_shape.is_id_lookup:  # neither rows nor an index need be read for the ids of few patients
        few = few_ids().c.unique_id
        own = select(few, func.reverse(func.lower(few)).label("reversed_id")).cte("own_ids")
        unique_id, reversed_id, visible = own.c.unique_id, own.c.reversed_id, []
    is_long = func.char_length(identifier) >= literal_column(str(MIN_ID_PART_CHARACTERS))
    for conditions in (
        [reversed_id == reversed_part],
        [starts_with(unique_id, identifier), is_long],
        [starts_with(reversed_id, reversed_part), is_long],
    ):
        # not sorted, because PostgreSQL would scan the primary key instead of the index for the condition
        yield select(unique_id).where(*visible, *conditions).limit(literal_column(str(MAX_IDS_PER_TERM))).lateral()


def _holders(list_shape: ListShape, value: ColumnElement[str]) -> Any:
    """Return the relation of the visible patients with an identifier that has this normalized value."""
    conditions = [has_value(PATIENT_COLUMNS.unique_id, value), *list_shape.conditions]
    ids: Select[Any] = select(PATIENT_COLUMNS.unique_id).where(*conditions)
    if list_shape.is_id_lookup:  # one pass over the identifiers of the few patients
        held = patient_identifiers.c
        own = (
            select(held.patient_id.label("unique_id"), held.value)
            .where(is_in_few_ids(held.patient_id))
            .cte("held")
            .prefix_with("MATERIALIZED")
        )
        ids = select(own.c.unique_id).where(own.c.value == value).distinct()
    return ids.limit(literal_column(str(MAX_IDS_PER_TERM))).lateral()
