"""Singular and plural of nouns after counts, for the output of commands."""


def pluralize(count: int, singular: str, plural: str = "") -> str:
    """Return `singular` if `count` is 1, otherwise `plural`. By default, the plural is `singular` with an `s`."""
    return singular if count == 1 else plural or f"{singular}s"
