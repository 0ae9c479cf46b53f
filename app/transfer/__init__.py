"""Import and export of records: whole registers as files, one resource at a time."""
