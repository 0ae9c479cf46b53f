"""The limit: what is left when nothing but HTTP, the driver and one statement a request is left."""
