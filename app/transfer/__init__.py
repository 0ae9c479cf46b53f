"""Import of records from files and export of records to files. A file contains records of one resource."""
