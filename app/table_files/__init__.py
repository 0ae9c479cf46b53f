"""Files with tables: CSV and Excel workbooks, decompressed, decoded and split into rows of texts."""
