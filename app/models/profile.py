from sqlalchemy.orm import Mapped

from app.db.base import Resource, text_column


class Profile(Resource):
    """An account that patients are linked to. Several patients may share one account, such as a parent's account."""

    __tablename__ = "profiles"

    email: Mapped[str | None] = text_column(254)
    first_name: Mapped[str | None] = text_column(150)
    last_name: Mapped[str | None] = text_column(150)
