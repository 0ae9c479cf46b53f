"""The limit: only HTTP, the driver and one statement per request."""
