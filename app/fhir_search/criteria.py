"""Criteria: the parameters of a search, parsed into predicates whose SQL depends on their kinds, not on their values.

A record has to meet all criteria of a search. It meets a criterion if it meets one of its alternatives, which are the
values of a parameter, separated by commas. It meets an alternative if all of its predicates hold.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    Text,
    and_,
    any_,
    bindparam,
    exists,
    false,
    func,
    literal_column,
    or_,
    true,
)

from app.db.base import FOLDED_TEXT, HUMAN_TEXT
from app.listing.keyset import has_word, sort_key, starts_with
from app.patient_identifiers.finding import has_identifier
from app.records.repository import Repository
from app.statements.documents import ToMany


class Predicate(NamedTuple):
    """A comparison of a column, or of a set of links, with values."""

    kind: str
    """The name of the comparison, a key of `_CONDITIONS`."""
    target: str
    """The name of the column or, such as `hospital_ids`, of the set of links. Empty for constant conditions."""
    values: Mapping[str, Any] = {}
    """The values by name. Their names, but not the values, determine the SQL."""


Alternative = tuple[Predicate, ...]
Criterion = tuple[Alternative, ...]
MAX_COMPARED_VALUES = 200
"""Maximum number of values that the predicates of a search compare. Building the SQL for so many takes about 50 ms."""


def merge_alternatives(alternatives: Iterable[Alternative]) -> Criterion:
    """Return the criterion with these alternatives, and with one predicate for all values that a column may equal."""
    values: dict[str, list[Any]] = {}
    others = []
    for predicates in alternatives:
        if [predicate.kind for predicate in predicates] == ["any_of"]:
            values.setdefault(predicates[0].target, []).extend(predicates[0].values["values"])
        else:
            others.append(predicates)
    return (*((Predicate("any_of", target, {"values": found}),) for target, found in values.items()), *others)


def compared_values(criterion: Criterion) -> int:
    """Return the number of values that the predicates of a criterion compare, which determines the size of its SQL."""
    return sum(len(predicate.values) for predicates in criterion for predicate in predicates)


PredicateShape = tuple[str, str, tuple[str, ...]]
CriteriaShape = tuple[tuple[tuple[PredicateShape, ...], ...], ...]
"""The part of criteria that determines their SQL."""


def criteria_shape(criteria: Sequence[Criterion]) -> CriteriaShape:
    """Return the part of criteria that determines their SQL."""
    return tuple(
        tuple(
            tuple((predicate.kind, predicate.target, tuple(sorted(predicate.values))) for predicate in predicates)
            for predicates in criterion
        )
        for criterion in criteria
    )


def criteria_parameters(criteria: Sequence[Criterion]) -> dict[str, Any]:
    """Return the values of the bind parameters in the conditions for criteria of this shape."""
    return {
        f"criterion_{number}_{name}": value
        for number, predicate in _numbered(criteria)
        for name, value in predicate.values.items()
    }


def _numbered(criteria: Sequence[Sequence[Sequence[Any]]]) -> list[tuple[int, Any]]:
    return list(enumerate(predicate for criterion in criteria for predicates in criterion for predicate in predicates))


def criteria_conditions(repository_class: type[Repository], shape: CriteriaShape) -> list[ColumnElement[bool]]:
    """Return a condition for each criterion that a record has to meet."""
    built = iter([_condition(repository_class, number, predicate) for number, predicate in _numbered(shape)])
    return [
        or_(false(), *(and_(true(), *(next(built) for _ in predicates)) for predicates in criterion))
        for criterion in shape
    ]


def _condition(repository_class: type[Repository], number: int, predicate: PredicateShape) -> ColumnElement[bool]:
    kind, target, names = predicate
    relation = repository_class.link_relations.get(target)
    if relation is not None:
        return _LINK_CONDITIONS[kind](repository_class, relation, f"criterion_{number}_id")
    column: Any = repository_class.table.c.get(target)

    def bind(name: str, type_: Any) -> ColumnElement[Any]:
        return bindparam(f"criterion_{number}_{name}", type_=type_)

    return _CONDITIONS[kind](column, bind, names)


Bind = Callable[[str, Any], ColumnElement[Any]]


def _folded(bind: Bind, name: str = "value") -> ColumnElement[Any]:
    return func.fold(bind(name, HUMAN_TEXT), type_=FOLDED_TEXT)


def _starts(column: Column[Any], bind: Bind, _: Sequence[str]) -> ColumnElement[bool]:
    return starts_with(sort_key(column), _folded(bind))


def _exact(column: Column[Any], bind: Bind, _: Sequence[str]) -> ColumnElement[bool]:
    # the folded column has an index, and the column itself tells case and accents apart
    return and_(sort_key(column) == _folded(bind), column == bind("value", HUMAN_TEXT))


def _contains(column: Column[Any], bind: Bind, _: Sequence[str]) -> ColumnElement[bool]:
    return func.strpos(sort_key(column), _folded(bind)) > literal_column("0")


def _word_within(column: Column[Any], bind: Bind, _: Sequence[str]) -> ColumnElement[bool]:
    """Return the condition that a word of the text begins with the value.

    No index serves it, so a predicate of the kind `words` must find the candidates.
    """
    text = literal_column("' '").concat(sort_key(column))
    return func.strpos(text, literal_column("' '").concat(_folded(bind))) > literal_column("0")


def _words(column: Column[Any], bind: Bind, names: Sequence[str]) -> ColumnElement[bool]:
    return and_(*(has_word(column, bind(name, HUMAN_TEXT)) for name in names))


def _query(column: Column[Any], bind: Bind, _: Sequence[str]) -> ColumnElement[bool]:
    return column.bool_op("@@")(func.to_tsquery(literal_column("'simple'::regconfig"), bind("query", Text)))


def _folded_equals(column: Column[Any], bind: Bind, _: Sequence[str]) -> ColumnElement[bool]:
    return sort_key(column) == _folded(bind)


def _any_of(column: Column[Any], bind: Bind, _: Sequence[str]) -> ColumnElement[bool]:
    key = sort_key(column)
    return key == any_(bind("values", ARRAY(key.type)))


def _within(column: Column[Any], bind: Bind, names: Sequence[str]) -> ColumnElement[bool]:
    """Return the condition that a time is at or after `first` and before `end`. One of the two may be absent."""
    bounds = [column >= bind("first", column.type)] if "first" in names else []
    return and_(*bounds, *([column < bind("end", column.type)] if "end" in names else []))


def _outside(column: Column[Any], bind: Bind, _: Sequence[str]) -> ColumnElement[bool]:
    return or_(column < bind("first", column.type), column >= bind("end", column.type))


_CONDITIONS: Mapping[str, Callable[[Any, Bind, Sequence[str]], ColumnElement[bool]]] = {
    "starts": _starts,
    "exact": _exact,
    "contains": _contains,
    "word_within": _word_within,
    "words": _words,
    "query": _query,
    "folded_equals": _folded_equals,
    "any_of": _any_of,
    "identifier": lambda column, bind, _: has_identifier(column, [bind("value", Text)]),
    "within": _within,
    "outside": _outside,
    "missing": lambda column, *_: column.is_(None),
    "present": lambda column, *_: column.is_not(None),
    "all": lambda *_: true(),
    "none": lambda *_: false(),
}


def _has_link(repository_class: type[Repository], relation: ToMany) -> Any:
    return exists().where(relation.owner_column == repository_class.table.c.unique_id)


_LINK_CONDITIONS: Mapping[str, Callable[[type[Repository], ToMany, str], ColumnElement[bool]]] = {
    "linked": lambda repository_class, relation, name: _has_link(repository_class, relation).where(
        relation.target_column == bindparam(name, type_=relation.target_column.type)
    ),
    "present": lambda repository_class, relation, _: _has_link(repository_class, relation),
    "missing": lambda repository_class, relation, _: ~_has_link(repository_class, relation),
}
