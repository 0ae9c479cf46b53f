"""The wording of counts in the output of commands."""


def pluralize(count: int, singular: str, plural: str = "") -> str:
    """Return the form of a noun for a count; without `plural`, the plural is `singular` with an `s`."""
    return singular if count == 1 else plural or f"{singular}s"
