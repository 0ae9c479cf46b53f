"""The pace of background work that has much to do, such as after an import."""

PAUSE_PER_WORK = 9
"""Ratio of the pause between two batches of background work to the duration of the batch before it.

Clients can cause background work faster than it can be done. It then takes a tenth of the time, and is behind for a
while, so that requests have most of the time for themselves.
"""
