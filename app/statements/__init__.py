"""The SQL that resources share: documents, links, journal entries, writes and the hospital scope."""
