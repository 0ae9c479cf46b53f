"""The page at /docs, from assets that a package ships: it works without a network."""
