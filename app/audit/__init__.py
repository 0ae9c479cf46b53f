"""The audit: records which principals accessed which patients and profiles, and which requests were denied."""
