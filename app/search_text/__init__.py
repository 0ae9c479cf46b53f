"""The texts that people type into a search: terms, dates of birth and numbers, without regard to stored data."""
