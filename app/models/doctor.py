from sqlalchemy import Computed, Index
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import NO_FASTUPDATE, Resource, folded_column, text_column


class Doctor(Resource):
    __tablename__ = "doctors"

    doctor_first_name: Mapped[str] = text_column(150, nullable=False)
    doctor_last_name: Mapped[str | None] = text_column(150)
    doctor_first_name_folded: Mapped[str | None] = folded_column("doctor_first_name")
    doctor_last_name_folded: Mapped[str | None] = folded_column("doctor_last_name")
    doctor_search: Mapped[str | None] = mapped_column(
        TSVECTOR, Computed("spellings(doctor_last_name, doctor_first_name, NULL, NULL)", persisted=True)
    )
    """The case- and accent-folded words by which a search finds the doctor."""


_DOCTOR_COLUMNS = Doctor.__table__.c
for _name in ("doctor_first_name_folded", "doctor_last_name_folded"):
    Index(None, _DOCTOR_COLUMNS[_name], _DOCTOR_COLUMNS.unique_id)
Index(
    "ix_doctors_doctor_search",
    _DOCTOR_COLUMNS.doctor_search,
    postgresql_using="gin",
    postgresql_with=NO_FASTUPDATE,
)
