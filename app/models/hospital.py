from sqlalchemy.orm import Mapped

from app.db.base import Resource, text_column


class Hospital(Resource):
    __tablename__ = "hospitals"

    hospital_name: Mapped[str] = text_column(255, nullable=False)
