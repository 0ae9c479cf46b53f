"""The results of comparing two values."""

from enum import StrEnum


class Level(StrEnum):
    """How the values of a field in two records compare."""

    SAME = "same"
    SAME_FREQUENT = "same and frequent"
    """The same name, which many people have."""
    SPELLING = "other spelling"
    """The same name in another spelling, with other particles, or with letters that are swapped or doubled: differences
    that two names do not have.
    """
    SHORT_FORM = "short form"
    """A name and its short form, such as William and Bill."""
    OTHER_FORM = "other form"
    """A name and a short form that is given as a name, too, such as Thabiso and Thabo."""
    PART = "part"
    """Names with the same first word, or addresses that have much in common."""
    SECOND = "second name"
    """All words of one name are in the other, but not its first word."""
    INITIAL = "initial"
    NEAR = "near"
    """The values differ by one typing error."""
    SIMILAR = "similar"
    """The values differ by more than one typing error but have most letters in common."""
    STREET = "street"
    """The same street with another number."""
    PLACEHOLDER = "same placeholder"
    """The same 1 January, which many registers contain if only the year is known."""
    SWAPPED = "day and month swapped"
    YEAR_ONLY = "year only"
    """The same year, and one of the dates is a 1 January."""
    SAME_MONTH = "month and year, or day and month"
    """Two of day, month and year are the same."""
    DIFFERENT = "different"
