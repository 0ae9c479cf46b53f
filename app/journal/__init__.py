"""The journal: every change of every record, its history, undoing, and forgetting a person."""
