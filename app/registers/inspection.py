"""Inspection of a register: what its columns are taken for, with samples, and a mapping file to edit."""

import json
from collections import defaultdict
from collections.abc import Iterator

from app.counts import counted
from app.fields.characters import is_blank, normalize_characters
from app.registers.columns import UnknownColumn, numbered_name, shown_header
from app.registers.formats import format_descriptions
from app.registers.register import Register

SAMPLE_COUNT = 3
SAMPLE_CHARACTERS = 24
_COLUMN_WIDTHS = (24, 30, 9)


class Inspection:
    """What was found in a register. Its samples are data of patients."""

    def __init__(self, register: Register) -> None:
        """Read the whole register.

        Raises:
            UnreadableFileError: the register cannot be read to its end.
        """
        self._register = register
        self._row_count = 0
        self._filled: dict[int, int] = defaultdict(int)
        self._samples: dict[int, dict[str, None]] = defaultdict(dict)
        self._encoding_problem = ""
        for cells in register.texts():
            self._add(cells)
        self._formats = format_descriptions(register.date_formats)

    def _add(self, cells: list[str]) -> None:
        self._row_count += 1
        for index, cell in enumerate(cells):
            if is_blank(cell):
                continue
            self._filled[index] += 1
            if not cell.isprintable() and any("\udc80" <= character <= "\udcff" for character in cell):
                self._encoding_problem = self._encoding_problem or self._register.table.encoding_hint(cells)
                cell = cell.encode(errors="replace").decode()  # noqa: PLW2901  # the samples must be printable
            if len(self._samples[index]) < SAMPLE_COUNT:
                self._samples[index][_sample(cell)] = None

    def report(self) -> Iterator[str]:
        """Yield the lines of the report for people."""
        register = self._register
        yield (
            f"{register.table.description}; {counted(self._row_count, 'row')} below the header, which is in line "
            f"{register.header_line_number}"
        )
        if self._encoding_problem:
            yield f"Some cells are not in UTF-8. {self._encoding_problem}"
        yield self._line("column", "taken for", "filled", "samples")
        fields = {column.column_index: column for column in register.recognized.columns}
        unknown = self._unknown_columns()
        for index in sorted(fields.keys() | unknown.keys()):
            if index in unknown:
                yield self._row(index, unknown[index].header, "NOT KNOWN")
                if hint := register.recognized.hint(unknown[index]):
                    yield self._line("", hint)
            else:
                column = fields[index]
                yield self._row(index, column.header, ", ".join(column.fields) or "(left out)")
            if index in self._formats and self._filled[index]:
                yield self._line("", self._formats[index])

    def mapping(self) -> Iterator[str]:
        """Yield the lines of a mapping file (TOML). Unknown columns are left out until a person edits it."""
        yield "# Column of the file = field of the API, or false to leave the column out. A full name can be split:"
        yield '# "patient_last_name, patient_first_name", or the other order.'
        recognized = self._register.recognized
        fields = {column.column_index: column for column in recognized.columns}
        unknown = self._unknown_columns()
        headers = {""}
        for index in sorted(fields.keys() | unknown.keys()):
            header = unknown[index].header if index in unknown else fields[index].header
            name = _toml_key(numbered_name(index, header) if header in headers else header)
            headers.add(header)
            if index in unknown:
                hint = recognized.hint(unknown[index])
                yield f"{name} = false  # not known{hint and '; '}{hint}"
            else:
                target = json.dumps(", ".join(fields[index].fields)) if fields[index].fields else "false"
                yield f"{name} = {target}"

    def _unknown_columns(self) -> dict[int, UnknownColumn]:
        """Return the unknown columns by column index, and those with values that have no name."""
        recognized = self._register.recognized
        nameless = [UnknownColumn(index, "") for index in self._filled if index >= recognized.width]
        return {column.column_index: column for column in (*nameless, *recognized.unknown)}

    def _row(self, index: int, header: str, meaning: str) -> str:
        samples = " · ".join(self._samples[index])
        return self._line(f"{index + 1} {shown_header(header)}", meaning, f"{self._filled[index]:,}", samples)

    @staticmethod
    def _line(*texts: str) -> str:
        padded = [f"{text:<{width}}" for text, width in zip(texts, _COLUMN_WIDTHS, strict=False)]
        return "  ".join([*padded, *texts[len(padded) :]]).rstrip()


def _sample(cell: str) -> str:
    text = normalize_characters(cell).strip()
    return text if len(text) <= SAMPLE_CHARACTERS else f"{text[: SAMPLE_CHARACTERS - 1]}…"


def _toml_key(header: str) -> str:
    return json.dumps(header, ensure_ascii=False).replace("\x7f", "\\u007f")
