"""Particles of last names in the languages of the country and its neighbours."""

PARTICLES = frozenset("al bin bint da das de del den der di do dos du el ibn la le st ten ter van von".split())  # noqa: SIM905  # one line a word would be a page
"""Words that belong to the last name that follows them, in lowercase."""
