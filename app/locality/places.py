"""Abbreviations of places in the country."""

PLACE_ABBREVIATIONS = {
    # provinces
    "ec": "eastern cape",
    "fs": "free state",
    "gp": "gauteng",
    "kzn": "kwazulu-natal",
    "lp": "limpopo",
    "mp": "mpumalanga",
    "nc": "northern cape",
    "nw": "north west",
    "wc": "western cape",
    # towns
    "bfn": "bloemfontein",
    "cpt": "cape town",
    "dbn": "durban",
    "jhb": "johannesburg",
    "jozi": "johannesburg",
    "joburg": "johannesburg",
    "pe": "port elizabeth",
    "plk": "polokwane",
    "pmb": "pietermaritzburg",
    "pta": "pretoria",
}
"""Maps abbreviations to the names of provinces and towns, all in lowercase."""
