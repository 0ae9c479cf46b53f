"""Identifiers of staged patients: checks whether they can be stored, and writes rows that triggers would write."""

from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from typing import Self

from sqlalchemy import text

from app.db.connection import Connection
from app.errors import FieldError
from app.patient_identifiers.resolving import IDENTIFIERS
from app.staging.results import RowError, RowStatus

_GIVEN = f"""
    staged_patients CROSS JOIN LATERAL patient_identifier_rows(
        staged_patients.unique_id, staged_patients.patient_identifiers
    ) AS given WHERE staged_patients.patient_identifiers IS NOT NULL AND fate <> '{RowStatus.UNCHANGED}'
"""
_SELECT_ERRORS = text(
    f"""
    WITH given AS MATERIALIZED (SELECT line, hospital_ids, given.* FROM {_GIVEN})
    SELECT line, 'hospital', hospital_id FROM given
    -- those that the line links to are checked as links, and may be created just before the line is written
    WHERE hospital_id IS NOT NULL AND hospital_id <> ALL (coalesce(hospital_ids, '{{}}'))
        AND NOT EXISTS (SELECT FROM hospitals WHERE unique_id = hospital_id)
    UNION
    SELECT line, 'taken', type FROM given JOIN patient_identifiers AS held USING (value, type, country, scope)
    WHERE held.patient_id <> given.patient_id
    ORDER BY 1, 2, 3
    """  # noqa: S608  # contains only our own constants
)
_SELECT_SHARED = text(
    f"""
    SELECT line, type, key FROM (
        SELECT line, type, key, min(line) OVER same_key <> max(line) OVER same_key AS is_shared
        FROM (
            SELECT line, given.type, CAST(ROW(given.type, country, scope, value) AS text) AS key FROM {_GIVEN}
        ) AS given
        WINDOW same_key AS (PARTITION BY key)
    ) AS given
    WHERE is_shared ORDER BY line, type
    """  # noqa: S608  # as above
)
"""Selects the identifiers that several lines have."""
_DELETE_ROWS = text(
    f"""
    DELETE FROM patient_identifiers WHERE patient_id IN (
        SELECT unique_id FROM staged_patients WHERE fate = '{RowStatus.UPDATED}'
    )
    """  # noqa: S608  # as above
)
_INSERT_ROWS = text(f"INSERT INTO patient_identifiers SELECT given.* FROM {_GIVEN}")  # noqa: S608  # as above


async def identifier_errors(connection: Connection) -> AsyncIterator[RowError]:
    """Yield the errors of staged patients whose identifiers name unknown hospitals, or belong to other patients."""
    for line, kind, name in (await connection.execute(_SELECT_ERRORS)).records:
        if kind == "hospital":
            message = f"There is no hospital with the unique_id {name}"
            yield RowError(line, FieldError((IDENTIFIERS,), message, "unknown_hospital"))
        else:
            yield RowError(line, _taken_error(name))


class SharedIdentifiers:
    """The identifiers that several staged lines have. Each belongs to the first of these lines that is accepted."""

    def __init__(self, rows: Iterable[tuple[int, str, str]]) -> None:
        """`rows` have the number of the line, the type of the identifier, and what identifies it."""
        self._identifiers: dict[int, list[tuple[str, str]]] = defaultdict(list)
        for line, name, key in rows:
            self._identifiers[line].append((name, key))
        self._taken_keys: set[str] = set()

    @classmethod
    async def load(cls, connection: Connection) -> Self:
        """Return those of the staged patients."""
        return cls((await connection.execute(_SELECT_SHARED)).all())

    @property
    def lines(self) -> Collection[int]:
        """The numbers of the lines."""
        return self._identifiers.keys()

    def errors(self, line: int) -> Iterator[FieldError]:
        """Yield an error for each identifier of a line that belongs to an earlier one."""
        for name, key in self._identifiers.get(line, ()):
            if key in self._taken_keys:
                yield _taken_error(name)

    def accept(self, line: int) -> None:
        """Give a line its identifiers, so that no later one can have them."""
        self._taken_keys.update(key for _, key in self._identifiers.get(line, ()))


def _taken_error(name: str) -> FieldError:
    message = f"Is taken: another patient, or one in an earlier line, has this {name}"
    return FieldError((IDENTIFIERS,), message, "patient_identifier_taken")


async def index_identifiers(connection: Connection) -> None:
    """Write the rows of the staged patients' identifiers, as triggers do for tables that have triggers."""
    await connection.execute(_DELETE_ROWS)
    await connection.execute(_INSERT_ROWS)
