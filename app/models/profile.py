from sqlalchemy import Computed, Index
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import NO_FASTUPDATE, Resource, folded_column, text_column


class Profile(Resource):
    """An account that patients are linked to. Several patients may share one account, such as a parent's account."""

    __tablename__ = "profiles"

    email: Mapped[str | None] = text_column(254)
    first_name: Mapped[str | None] = text_column(150)
    last_name: Mapped[str | None] = text_column(150)
    email_folded: Mapped[str | None] = folded_column("email")
    first_name_folded: Mapped[str | None] = folded_column("first_name")
    last_name_folded: Mapped[str | None] = folded_column("last_name")
    profile_search: Mapped[str | None] = mapped_column(
        TSVECTOR, Computed("spellings(last_name, first_name, NULL, NULL)", persisted=True)
    )
    """The case- and accent-folded words by which a search finds the profile."""


_PROFILE_COLUMNS = Profile.__table__.c
for _name in ("email_folded", "first_name_folded", "last_name_folded"):
    Index(None, _PROFILE_COLUMNS[_name], _PROFILE_COLUMNS.unique_id)
Index(
    "ix_profiles_profile_search",
    _PROFILE_COLUMNS.profile_search,
    postgresql_using="gin",
    postgresql_with=NO_FASTUPDATE,
)
