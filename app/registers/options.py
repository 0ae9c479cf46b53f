"""What a person says about a register: mapping files and options."""

import codecs
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from app.registers.dates import DATE_ORDERS
from app.table_files.errors import UnreadableFileError

NAME_FIELDS = ("patient_first_name", "patient_last_name")
"""The fields into which a column with full names can be split, in either order."""
TITLE_FIELD = "patient_title"
"""The field of the titles in full names, such as `Dr`, unless another column has a title."""


@dataclass(frozen=True, slots=True)
class TableOptions:
    """What a person says about the table of a register. Headers are written as in the file, in any case."""

    mapping: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Maps headers to the fields of the API: to one, to two for a full name, or to none for a column to ignore."""
    date_orders: Mapping[str, str] = field(default_factory=dict)
    """Maps headers to the order of the dates in their columns. The key "" stands for all other columns."""
    null_words: tuple[str, ...] = ()
    """Null words of all columns, besides the usual ones: texts that stand for a missing value."""
    sheet: str | None = None
    """Name of the worksheet. The default is the first one."""
    link_names: bool = False
    """Whether columns of links contain the names of hospitals and doctors instead of their ids."""
    encoding: str | None = None
    """The encoding of the file, needed if it is not UTF-8 and no byte order mark shows it."""

    @property
    def folded_null_words(self) -> frozenset[str]:
        """The additional null words, in lowercase."""
        return frozenset(word.strip().casefold() for word in self.null_words)

    @property
    def is_given(self) -> bool:
        """Whether any option is given."""
        return self != TableOptions()


def parse_mapping(text: str) -> dict[str, tuple[str, ...]]:
    """Return the mapping in the text of a mapping file, a TOML document such as `"Naam" = "patient_first_name"`.

    Raises:
        UnreadableFileError: the text is not TOML, or has a value that is neither text nor false.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UnreadableFileError(f"The mapping file is not TOML: {error}.") from None
    mapping = {}
    for header, value in document.items():
        if value is not False and not isinstance(value, str):
            raise UnreadableFileError(
                f'The mapping file must map {header} to a field, such as "patient_first_name", or to false.'
            )
        mapping[header] = tuple(name.strip() for name in value.split(",")) if value else ()
    return mapping


def parse_date_orders(arguments: Sequence[str]) -> dict[str, str]:
    """Return the orders of dates in arguments of the form `dmy` or `COLUMN=dmy`, by column.

    Raises:
        UnreadableFileError: an argument has another order.
    """
    orders = {}
    for argument in arguments:
        header, _, order = argument.rpartition("=")
        if order not in DATE_ORDERS:
            raise UnreadableFileError(
                f"--date-format must be {', '.join(DATE_ORDERS)}, or one of them for a column, such as DOB=dmy."
            )
        orders[header] = order
    return orders


def check_encoding(name: str) -> str:
    """Return the name of an encoding, or raise UnreadableFileError if there is none with this name."""
    try:
        codecs.getincrementaldecoder(name)
        "".encode(name)  # some codecs, such as base64, are no encodings of text
    except (LookupError, TypeError, ValueError):
        raise UnreadableFileError(f"There is no encoding {name}: try cp1252, latin-1 or utf-16.") from None
    return name
