"""The edges that every request passes."""
