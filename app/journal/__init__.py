"""The proof that the journal is complete: its hash chain, and the comparison of records with their entries."""
