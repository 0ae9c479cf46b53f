"""Bulk writes in batches: lines are copied into temporary tables, compared with stored records, and written."""
