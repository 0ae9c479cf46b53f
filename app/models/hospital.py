from sqlalchemy import Computed, Index
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import NO_FASTUPDATE, Resource, folded_column, text_column


class Hospital(Resource):
    __tablename__ = "hospitals"

    hospital_name: Mapped[str] = text_column(255, nullable=False)
    hospital_name_folded: Mapped[str | None] = folded_column("hospital_name")
    hospital_search: Mapped[str | None] = mapped_column(
        TSVECTOR, Computed("spellings(hospital_name, NULL, NULL, NULL)", persisted=True)
    )
    """The case- and accent-folded words by which a search finds the hospital."""


_HOSPITAL_COLUMNS = Hospital.__table__.c
Index(None, _HOSPITAL_COLUMNS.hospital_name_folded, _HOSPITAL_COLUMNS.unique_id)
Index(
    "ix_hospitals_hospital_search",
    _HOSPITAL_COLUMNS.hospital_search,
    postgresql_using="gin",
    postgresql_with=NO_FASTUPDATE,
)
