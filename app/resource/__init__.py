"""What all resources share; the files have the names that every resource's have."""
