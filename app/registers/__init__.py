"""Registers of other systems: tables with other headers, formats and encodings, read as the API's fields."""
