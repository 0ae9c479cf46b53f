"""Counts with their nouns, in messages for people."""


def counted(count: int, singular: str, plural: str = "") -> str:
    """Return a count with its noun, such as `1 record` or `2,000 records`. By default, the plural has an `s`."""
    return f"{count:,} {singular if count == 1 else plural or f'{singular}s'}"
