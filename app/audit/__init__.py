"""The audit: who has looked at whom, and who was refused."""
