"""Titles before and after the names of people, in English and Afrikaans."""

_TITLES = (
    ("mr", "mnr", "mister", "meneer"),
    ("mrs", "mev", "mevrou"),
    ("ms", "me"),
    ("miss", "mej", "mejuffrou"),
    ("mx",),
    ("master",),
    ("sir",),
    ("hon",),
    ("dr", "doctor", "dokter"),
    ("prof", "professor"),
    ("adv", "advocate", "advokaat"),
    ("rev", "reverend", "ds", "eerw"),
    ("sr", "sister", "suster"),
)
"""Titles before a name, in lowercase and without a dot. Those in a group mean the same."""
_SUFFIXES = (("sr", "snr", "senior"), ("jr", "jnr", "junior"), ("esq",), ("md",))
"""Titles after a name."""
_NAMES = frozenset(["advocate", "doctor", "junior", "senior", "sister"])
"""Titles that are also names, such as the first name of Doctor Khumalo."""

TITLE_SPELLINGS = {
    title: tuple(dict.fromkeys(spelling for group in (*_TITLES, *_SUFFIXES) if title in group for spelling in group))
    for group in (*_TITLES, *_SUFFIXES)
    for title in group
}
"""Maps each title, also those that are names, to all spellings of what it may mean."""
LEADING_TITLES = frozenset(title for group in _TITLES for title in group) - _NAMES
"""Titles before a name that are not names."""
TITLES = frozenset(TITLE_SPELLINGS) - _NAMES
"""Titles before or after a name that are not names."""
