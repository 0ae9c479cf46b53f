"""How well and how fast people who are registered twice are found."""
