"""Webhooks: sends changes of the feed to the endpoints that an operator has added, as Standard Webhooks specifies."""
