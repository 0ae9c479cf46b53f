from sqlalchemy.orm import Mapped

from app.db.base import Resource, text_column


class Doctor(Resource):
    __tablename__ = "doctors"

    doctor_first_name: Mapped[str] = text_column(150, nullable=False)
    doctor_last_name: Mapped[str | None] = text_column(150)
