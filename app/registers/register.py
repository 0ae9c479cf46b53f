"""Registers: tables whose columns are recognized, and whose cells are read as the API's fields."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain, islice
from typing import NamedTuple

from app.counts import counted
from app.errors import FieldError
from app.registers.cells import cell_readers
from app.registers.columns import Column, numbered_name, recognize, unknown_columns_error
from app.registers.formats import DateFormat, find_date_formats
from app.registers.full_names import split_full_name
from app.registers.header_rows import SAMPLE_ROWS, header_below_titles
from app.registers.known_names import KnownNames
from app.registers.options import NAME_FIELDS, TITLE_FIELD, TableOptions
from app.registers.other_rows import other_row_error
from app.registers.synonyms import header_key
from app.registers.values import NULL_WORDS, is_word
from app.table_files.errors import CellError, UnreadableFileError
from app.table_files.formulas import unescape_cell
from app.table_files.tables import Row, Table


class RegisterRow(NamedTuple):
    """A row of a register, with the API's names and spellings."""

    line_number: int
    cells: Mapping[str, str]
    """The cells by column name of the API. Cells with errors are absent."""
    errors: Sequence[FieldError] = ()
    remarks: Sequence[FieldError] = ()
    """What was left out of cells that were read nevertheless."""


class Register:
    """A table whose first row names the columns, and whose other rows are records of a resource."""

    def __init__(
        self,
        table: Table,
        read_again: Callable[[], Table | None],
        resource: str,
        fields: Sequence[str],
        options: TableOptions,
    ) -> None:
        """Read the header. `read_again` returns the same table from its beginning, or None if it is in a pipe.

        `fields` are the names of the API's columns.

        Raises:
            UnreadableFileError: the options contradict the table.
        """
        self.table = table
        self._read_again = read_again
        self._options = options
        self._rows = table.rows()
        known, said = KnownNames(resource, fields), {header_key(name) for name in options.mapping}

        def are_known(names: Sequence[str]) -> Sequence[bool]:
            return [known.fields_of(name.strip()) is not None or header_key(name) in said for name in names]

        self._header = next(self._rows, Row(1, []))
        if sum(are_known(self._header.cells)) * 2 < len(self._header.cells):
            rows = [self._header, *islice(self._rows, SAMPLE_ROWS)]
            index = header_below_titles(rows, are_known)
            self._header = rows[index]
            self._rows = chain(rows[index + 1 :], self._rows)
        self.recognized = recognize(self._header.cells, self._rows_below_header, known, options)
        # all rows of an export of this service are records
        self._is_export = all(column.is_literal for column in self.recognized.columns)
        self._remarks: list[FieldError] = []

    @property
    def header_line_number(self) -> int:
        """Number of the line with the names of the columns."""
        return self._header.line_number

    def _rows_below_header(self) -> list[list[str]]:
        """Return the cells of some rows below the header. `rows` yields these rows nevertheless."""
        rows = [*islice(self._rows, SAMPLE_ROWS)]
        self._rows = chain(rows, self._rows)
        return [row.cells for row in rows]

    def rows(self) -> Iterator[RegisterRow]:
        """Yield the rows below the header, with the API's names.

        Raises:
            UnreadableFileError: a column is unknown; the format of a column with dates is ambiguous or can be found
                only by reading the file twice, but the file is a pipe; or the rest of the file cannot be read.
        """
        columns = self.recognized.columns
        if self.recognized.unknown:
            raise unknown_columns_error(self.recognized, self.header_line_number, self.table.other_sheets)
        if columns and not any(column.fields for column in columns):
            raise UnreadableFileError("All columns are left out, so there is nothing to import.")
        readers = [
            reader
            for column in columns
            for reader in cell_readers(
                column,
                self._order_of,
                self._remarks,
                self._options.folded_null_words,
                link_names=self._options.link_names,
            )
        ]
        names = [column.fields[0] for column in columns if len(column.fields) == 1]
        is_simple = len(names) == len(columns)
        width = self.recognized.width
        for line_number, cells, faults in self._rows:
            row = "".join(cells)  # tests of the whole row are faster than tests of its cells
            if len(cells) != width:
                self._adjust_width(cells)
            needs_check = not self._is_export or len(cells) != width or not row.isascii()
            if needs_check and (error := self._row_error(cells)) is not None:
                yield RegisterRow(line_number, {}, (error,))
                continue
            if "'" in row or '="' in row:
                cells = [*map(unescape_cell, cells)]  # noqa: PLW2901  # most rows have no apostrophe
            by_name = dict(zip(names, cells, strict=True)) if is_simple else self._select_cells(cells)
            errors = [*self._take_faults(faults, by_name)] if faults else []
            for name, is_plain, read in readers:
                text = by_name.get(name)
                if text and not is_plain(text):
                    try:
                        by_name[name] = read(text)
                    except CellError as error:
                        del by_name[name]
                        errors.append(error.in_field(*name.split(".")))
            yield RegisterRow(line_number, by_name, errors, self._take_remarks() if self._remarks else ())

    def _take_faults(self, faults: Sequence[tuple[int, CellError]], by_name: dict[str, str]) -> Iterator[FieldError]:
        """Remove the fields of cells without a usable value, and yield their errors."""
        fields = {column.column_index: column.fields for column in self.recognized.columns}
        for index, fault in faults:
            for name in fields.get(index, ()):
                by_name.pop(name, None)
                yield fault.in_field(*name.split("."))

    def _take_remarks(self) -> list[FieldError]:
        remarks = [*self._remarks]
        self._remarks.clear()
        return remarks

    def texts(self) -> Iterator[list[str]]:
        """Yield the cells of the rows below the header as they are in the file."""
        for _, cells, _ in self._rows:
            yield [unescape_cell(cell) for cell in cells]

    @cached_property
    def date_formats(self) -> Mapping[int, DateFormat]:
        """The formats of the columns with dates, by index. They are found by reading the whole table."""
        return find_date_formats(self.recognized.columns, self.header_line_number, self._read_again, self._options)

    def _order_of(self, column: Column) -> str | None:
        return self.date_formats[column.column_index].checked_order()

    def _adjust_width(self, cells: list[str]) -> None:
        """Remove the blank columns that spreadsheets save, or add those after the last cell of a worksheet's row."""
        width = self.recognized.width
        while len(cells) > width and not cells[-1].strip():
            cells.pop()
        if self.table.is_workbook:
            cells += [""] * (width - len(cells))

    def _row_error(self, cells: list[str]) -> FieldError | None:
        """Return an error if a row has more or fewer cells than the header, or cells that are not in UTF-8."""
        width = self.recognized.width
        if width < len(cells) <= len(self._header.cells):
            index = max(index for index, cell in enumerate(cells) if cell.strip())
            message = (
                f"Has a value in column {index + 1}, which has no name: name it, or leave it out with --ignore "
                f'"{numbered_name(index, "")}"'
            )
            return FieldError((), message, "cells")
        if len(cells) != width:
            return FieldError(
                (), f"Has {counted(len(cells), 'cell')}, but the file has {counted(width, 'column')}", "cells"
            )
        for index, cell in enumerate(cells):
            if not cell.isascii() and any("\udc80" <= character <= "\udcff" for character in cell):
                fields = self.recognized.columns[index].fields
                location = fields[0].split(".") if fields else ()
                return FieldError((*location,), f"Is not in UTF-8. {self.table.encoding_hint(cells)}", "encoding")
        return None if self._is_export else other_row_error(cells, self._header.cells)

    def _select_cells(self, cells: Sequence[str]) -> dict[str, str]:
        """Return the cells by field, without those of ignored columns, and with full names split in two."""
        by_name = {}
        titles = []
        for index, _, fields in self.recognized.columns:
            if len(fields) == 1:
                by_name[fields[0]] = cells[index]
            elif fields:
                text = cells[index]
                if is_word(text, NULL_WORDS | self._options.folded_null_words):
                    text = ""
                name = split_full_name(text, last_name_first=fields[0] == NAME_FIELDS[1])
                by_name |= dict(zip(NAME_FIELDS, (name.first_names, name.last_name), strict=True))
                titles.append(name.title)
        if any(titles) and not by_name.get(TITLE_FIELD, "").strip():
            by_name[TITLE_FIELD] = titles[0]
        return by_name
