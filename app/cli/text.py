"""How commands word what they have counted."""


def pluralize(count: int, singular: str, plural: str = "") -> str:
    """The noun that goes with a number; of several it has an `s` unless it is said."""
    return singular if count == 1 else plural or f"{singular}s"
