"""The columns of a table: the field of the API that each of them contains, by its header or by the options."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from app.counts import counted
from app.patient_identifiers.checkers import InvalidIdentifierError, check_value, normalize
from app.registers.header_rows import is_header_row
from app.registers.hints import MAX_HEADER_CHARACTERS, Hints
from app.registers.known_names import KnownNames
from app.registers.options import NAME_FIELDS, TableOptions
from app.registers.synonyms import header_key
from app.registers.values import UNKNOWN_WORDS, is_word
from app.suggestions import suggestion
from app.table_files.errors import UnreadableFileError

ID_FIELD, IDENTITY_NUMBER_FIELD = "unique_id", "patient_identifiers.za_id"
IDENTITY_NUMBER_HINT = (
    f'its values are identity numbers: map it to "{IDENTITY_NUMBER_FIELD}", or to "{ID_FIELD}" if URLs may contain them'
)
IDENTITY_NUMBER_CHECKER = "za.idnr"
IDENTITY_NUMBER_LENGTH = 13
WHERE_LISTED = "the first line of a CSV export lists the fields"
MAX_NAMED_COLUMNS = 100
"""Maximum number of unknown columns that an error names. Few registers have as many columns."""
_HEADER_PATTERN = re.compile(r"[^\W\d][^\t\r\n@=\"\\]{0,63}")
"""Matches headers that a message may show. A row without a header contains data of patients."""
_HIDDEN_HEADER_CHARACTERS = re.compile(r"[^\w .,:;()/#&?*+'-]")


class Column(NamedTuple):
    """A column of a table."""

    column_index: int
    """Index of its cells in each row."""
    header: str
    fields: tuple[str, ...]
    """Its field; two fields for a full name, in the order of the names; or no field if the column is ignored."""

    @property
    def is_literal(self) -> bool:
        """Whether the header is exactly the name of the API, so that the texts are as an export writes them."""
        return self.fields == (self.header,)


class UnknownColumn(NamedTuple):
    """A column whose content is not known."""

    column_index: int
    header: str
    owner: Column | None = None
    """The column that already contains the field that the header names."""
    has_identity_numbers: bool = False
    """Whether the header names ids, but the values are identity numbers, which a person must decide on."""


class RecognizedColumns(NamedTuple):
    """The columns of a table, known and unknown."""

    columns: list[Column]
    """All columns with a known meaning, in their order in the file."""
    unknown: list[UnknownColumn]
    """All other columns."""
    is_header: bool
    """Whether the row is a header, which may be shown. Otherwise it may contain data of patients."""
    hints: Hints

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.columns) + len(self.unknown)

    def hint(self, column: UnknownColumn) -> str:
        """Return what an unknown column probably contains, or "" if there is no guess."""
        if column.owner is not None:
            return f"{column.owner.fields[0]} is in column {column.owner.column_index + 1} already"
        return IDENTITY_NUMBER_HINT if column.has_identity_numbers else self.hints.hint(column.header)


def recognize(
    header: Sequence[str],
    rows_below: Callable[[], Sequence[Sequence[str]]],
    known: KnownNames,
    options: TableOptions,
) -> RecognizedColumns:
    """Return what the columns with these headers contain.

    If several columns have names of the same field, the first of them contains it, and the others are unknown. So is a
    column of ids that are identity numbers, unless it has exactly the API's name. `rows_below` returns some rows below
    the header.

    Raises:
        UnreadableFileError: the options name a column that the file does not have, or a field that the API does not
            have, or map two columns to the same field.
    """
    names = [name.strip() for name in header]
    said_keys = {header_key(name) for name in options.mapping}
    # spreadsheets save empty columns, too
    while names and not header_key(names[-1]) and header_key(numbered_name(len(names) - 1, "")) not in said_keys:
        names.pop()
    hints = Hints(known.fields_by_key, known.fields)
    understood = [known.fields_of(name) for name in names]
    has_header = is_header_row(names, [one is not None for one in understood], hints.hint, rows_below)
    said = _said_fields(names, known.fields, options, is_header=has_header)
    found = [said.get(index, one) for index, one in enumerate(understood)]
    numbers = {
        index
        for index, one in enumerate(found)
        if one == (ID_FIELD,)
        and not (index in said or names[index] == ID_FIELD)
        and IDENTITY_NUMBER_FIELD in known.fields
        and _are_identity_numbers([row[index] for row in rows_below() if index < len(row)])
    }
    found = [None if index in numbers else one for index, one in enumerate(found)]
    columns = [
        Column(index, name, one) for index, (name, one) in enumerate(zip(names, found, strict=True)) if one is not None
    ]
    columns.sort(key=lambda column: (column.column_index not in said, not column.is_literal))
    owners: dict[str, Column] = {}
    unknown = [
        UnknownColumn(index, name, has_identity_numbers=index in numbers)
        for index, (name, one) in enumerate(zip(names, found, strict=True))
        if one is None
    ]
    for column in list(columns):
        rival = next((owners[field] for field in column.fields if field in owners), None)
        if rival is None:
            owners |= dict.fromkeys(column.fields, column)
            continue
        if column.column_index in said:
            raise UnreadableFileError(
                f"{rival.header} and {column.header} are both mapped to {column.fields[0]} "
                f"(columns {rival.column_index + 1} and {column.column_index + 1})."
            )
        columns.remove(column)
        unknown.append(UnknownColumn(column.column_index, column.header, rival))
    return RecognizedColumns(sorted(columns), sorted(unknown), bool(said) or has_header, hints)


def _are_identity_numbers(texts: Sequence[str]) -> bool:
    """Return whether the values among the texts of some cells are identity numbers with right check digits."""
    values = [text for text in texts if text.strip() and not is_word(text, UNKNOWN_WORDS)]
    if not values or not all(len(normalize(value)) == IDENTITY_NUMBER_LENGTH for value in values):
        return False  # the checker is loaded for few files
    try:
        return all(check_value(IDENTITY_NUMBER_CHECKER, normalize(value)) for value in values)
    except InvalidIdentifierError:
        return False


def unknown_columns_error(
    recognized: RecognizedColumns, line_number: int, other_sheets: Sequence[str]
) -> UnreadableFileError:
    """Return the error that names all unknown columns, each with a suggestion."""
    if not recognized.is_header:
        sheets = f", or specify another --sheet: {', '.join(other_sheets)}" if other_sheets else ""
        return UnreadableFileError(
            f"Line {line_number} must name the columns, but may contain a record. Insert a line with their names above "
            f"it, such as patient_last_name ({WHERE_LISTED}){sheets}."
        )
    problems = []
    for column in recognized.unknown[:MAX_NAMED_COLUMNS]:
        is_shown = _HEADER_PATTERN.fullmatch(column.header) is not None
        name = f", {shown_header(column.header)}," if is_shown else ""
        hint = recognized.hint(column) if is_shown else ""
        problems.append(f"Column {column.column_index + 1}{name} is not known{hint and f' ({hint})'}.")
    if len(recognized.unknown) > MAX_NAMED_COLUMNS:
        problems.append(f"The same is true of {counted(len(recognized.unknown) - MAX_NAMED_COLUMNS, 'more column')}.")
    return UnreadableFileError(
        f"Line {line_number} must name the columns. {' '.join(problems)} Map them with --map ({WHERE_LISTED}), leave "
        "them out with --ignore, or let --inspect --save write a mapping file."
    )


def shown_header(header: str) -> str:
    """Return a header as a message or a mapping file shows it."""
    return _HIDDEN_HEADER_CHARACTERS.sub("…", header)


def numbered_name(index: int, header: str) -> str:
    """Return the name by which a mapping file can specify a column whose header is blank or not unique."""
    return f"{header} (column {index + 1})".strip()


def _places(name: str, headers: Sequence[str]) -> tuple[int, list[int]]:
    """Return the precedence of a name in a mapping file (0 is the highest), and the indexes of its columns.

    A numbered name precedes the exact text of a header, which precedes a header in another spelling.
    """
    found = [
        [index for index, header in enumerate(headers) if header_key(numbered_name(index, header)) == header_key(name)],
        [index for index, header in enumerate(headers) if header == name.strip()],
        [index for index, header in enumerate(headers) if header_key(header) == header_key(name)],
    ]
    return next(((precedence, indexes) for precedence, indexes in enumerate(found) if indexes), (len(found), []))


def _said_fields(
    names: Sequence[str], fields: Sequence[str], options: TableOptions, *, is_header: bool
) -> Mapping[int, tuple[str, ...]]:
    """Return the fields that the options specify, by the index of the column.

    An error suggests headers only if `is_header` is true, because the row may otherwise contain data of patients.
    """
    suggested = [shown_header(name) for name in names] if is_header else []
    for header in [*options.mapping, *filter(None, options.date_orders)]:
        if not _places(header, names)[1]:
            hint = suggestion(header[:MAX_HEADER_CHARACTERS], suggested, "--inspect lists the columns")
            raise UnreadableFileError(f"The file has no column {header} ({hint}).")
    for header, targets in options.mapping.items():
        is_full_name = len(targets) > 1 and sorted(targets) == sorted(NAME_FIELDS)
        if len(targets) > 1 and not is_full_name:
            raise UnreadableFileError(
                f'Only a full name can be split, into "patient_first_name, patient_last_name" or the other order, '
                f"but {header} is mapped to something else."
            )
        for target in targets:
            if target not in fields:
                hint = suggestion(target[:MAX_HEADER_CHARACTERS], fields, WHERE_LISTED)
                raise UnreadableFileError(f"{header} is mapped to {target}, which is no field ({hint}).")
    found = [(*_places(header, names), targets) for header, targets in options.mapping.items()]
    found.sort(key=lambda one: -one[0])  # names that take precedence come last
    return {index: targets for _, indexes, targets in found for index in indexes}
