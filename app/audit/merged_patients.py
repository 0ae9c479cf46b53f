"""Under which ids a patient's data could be accessed: the patient's own, and those of patients of the same person."""

from sqlalchemy import CTE, DateTime, Text, column, text

from app.db.base import ID_TEXT

SHOWN_IN: CTE = (
    text(
        """
    SELECT CAST(:id AS text) COLLATE "C", CAST('-infinity' AS timestamptz), CAST('infinity' AS timestamptz), 'self'
    UNION
    SELECT found.unique_id, found.since, found.until, found.way
    FROM shown_in CROSS JOIN LATERAL (
        -- the patients that are merged into this one
        SELECT entry.merge ->> 'merged_from' COLLATE "C" AS unique_id, shown_in.since, shown_in.until, 'loser' AS way
        FROM journal entry
        WHERE shown_in.way IN ('self', 'loser') AND entry.resource = 'patients' AND entry.merge IS NOT NULL
            AND entry.unique_id = shown_in.unique_id AND (
                SELECT newest.action = 'merged' AND newest.merge ->> 'merged_into' = shown_in.unique_id
                FROM journal newest
                WHERE newest.resource = 'patients' AND newest.unique_id = entry.merge ->> 'merged_from' COLLATE "C"
                ORDER BY newest.version DESC LIMIT 1
            )
        UNION ALL
        -- the patients that this one was merged into, for as long as it was
        SELECT entry.merge ->> 'merged_into' COLLATE "C", greatest(shown_in.since, entry.time),
            least(shown_in.until, later.time), 'survivor'
        FROM journal entry LEFT JOIN journal later ON later.resource = entry.resource
            AND later.unique_id = entry.unique_id AND later.version = entry.version + 1
        WHERE shown_in.way IN ('self', 'survivor') AND entry.resource = 'patients' AND entry.merge IS NOT NULL
            AND entry.unique_id = shown_in.unique_id AND entry.action = 'merged' AND entry.time < shown_in.until
            AND coalesce(later.time, 'infinity') > shown_in.since
    ) AS found
    """
    )
    .columns(
        column("unique_id", ID_TEXT),
        column("since", DateTime(timezone=True)),
        column("until", DateTime(timezone=True)),
        column("way", Text),
    )
    .cte("shown_in", recursive=True)
)
"""The ids under which the data of the patient `:id` could be accessed, each with the time from when and until when.

These are the patient's own id, and the ids of the patients that are merged into it. If it was merged into another
patient itself, the data were also in that one, for as long as it was.
"""
