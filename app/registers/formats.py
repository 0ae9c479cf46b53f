"""The formats of a table's dates, which are found in whole columns by reading the table once more."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from app.fields.types import TIMESTAMP_FIELDS
from app.registers.columns import Column, shown_header
from app.registers.dates import AmbiguousDatesError, DateColumn
from app.registers.options import TableOptions
from app.registers.synonyms import header_key
from app.registers.values import UNKNOWN_WORDS, is_word
from app.table_files.errors import UnreadableFileError
from app.table_files.formulas import unescape_cell
from app.table_files.tables import Table

DATE_FIELDS = ("patient_date_of_birth",)
_SWAPPED_PROBLEM = (
    "has dates as well as texts: the spreadsheet may have swapped day and month where it recognized a date"
)


class DateFormat(NamedTuple):
    """The format of the dates in a column."""

    column: Column
    order: str | None
    """The order of day, month and year, or None if the column has only dates in ISO 8601."""
    description: str
    problem: str | None
    """Why the order cannot be found, as a predicate for the subject "The column"."""
    possible_order: str = "dmy"
    """An order that the column may have, as an example."""

    def checked_order(self) -> str | None:
        """Return the order.

        Raises:
            UnreadableFileError: the order cannot be found.
        """
        if self.problem is not None:
            name = shown_header(self.column.header)
            raise UnreadableFileError(
                f"Column {self.column.column_index + 1}, {name}, {self.problem}. Specify --date-format, such as "
                f'--date-format "{name}={self.possible_order}".'
            )
        return self.order


def find_date_formats(
    columns: Sequence[Column], header_line_number: int, read_again: Callable[[], Table | None], options: TableOptions
) -> dict[int, DateFormat]:
    """Read a whole table, and return the formats of its columns with dates, by the index of the column.

    `read_again` returns the table from its beginning, or None if it cannot be read again. Then the options must specify
    the orders.

    Raises:
        UnreadableFileError: the table cannot be read again, and the options do not specify the orders.
    """
    date_columns = [column for column in columns if {*column.fields} & {*DATE_FIELDS, *TIMESTAMP_FIELDS}]
    orders_by_key = {header_key(header): order for header, order in options.date_orders.items()}
    preferred = {
        column.column_index: orders_by_key.get(header_key(column.header), orders_by_key.get(""))
        for column in date_columns
    }
    table = read_again()
    if table is None:
        if None in preferred.values():
            raise UnreadableFileError(
                "The dates are not written YYYY-MM-DD, and standard input cannot be read twice to find their format: "
                "specify --date-format, or name the file instead of -."
            )
        return {
            column.column_index: DateFormat(column, preferred[column.column_index], "", None) for column in date_columns
        }
    dates = {column.column_index: DateColumn() for column in date_columns}
    words = UNKNOWN_WORDS | options.folded_null_words
    for line_number, cells, _ in table.rows():
        if line_number <= header_line_number:
            continue
        for index, column_dates in dates.items():
            if index < len(cells) and (text := unescape_cell(cells[index]).strip()) and not is_word(text, words):
                column_dates.add(text)
    return {
        column.column_index: _format(
            column, dates[column.column_index], preferred[column.column_index], is_workbook=table.is_workbook
        )
        for column in date_columns
    }


def _format(column: Column, dates: DateColumn, preferred: str | None, *, is_workbook: bool) -> DateFormat:
    try:
        order = dates.order(preferred)
    except AmbiguousDatesError as problem:
        return DateFormat(column, None, "", str(problem), problem.possible_order)
    is_mixed = is_workbook and dates.has_iso_dates and order is not None and preferred is None
    return DateFormat(column, order, dates.describe(order), _SWAPPED_PROBLEM if is_mixed else None)


def format_descriptions(formats: Mapping[int, DateFormat]) -> dict[int, str]:
    """Return a description of each format for people, by column index."""
    return {
        index: f"AMBIGUOUS: it {one.problem}; specify --date-format" if one.problem else f"dates: {one.description}"
        for index, one in formats.items()
    }
