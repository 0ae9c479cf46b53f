"""How commands word what they have counted."""


def noun(number: int, one: str, several: str = "") -> str:
    """The noun that goes with a number; of several it has an `s` unless it is said."""
    return one if number == 1 else several or f"{one}s"
