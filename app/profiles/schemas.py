from typing import Annotated

from app import contract
from app.fields.schemas import CreateBody, ReadOnly, Representation, RequestBody, UpdateBody
from app.fields.types import Email, Identifier, Text, Timestamp
from app.models import Profile as ProfileRow

columns = ProfileRow.__table__.c


class ProfileFields(RequestBody):
    """What a client may set of a profile."""

    email: Annotated[str | None, Email(columns.email)] = None
    first_name: Annotated[str | None, Text(columns.first_name)] = None
    last_name: Annotated[str | None, Text(columns.last_name)] = None


class Profile(Representation):
    """A profile: an account that patients are linked to."""

    example = contract.PROFILE

    unique_id: Identifier
    email: str | None
    first_name: str | None
    last_name: str | None
    date_created: Timestamp
    last_updated: Timestamp


class ProfileCreate(CreateBody, ProfileFields):
    """A new profile."""

    example = contract.PROFILE_FIELDS


class ProfileUpdate(UpdateBody, ProfileFields):
    """What to change of a profile; what is absent stays."""

    example = contract.PROFILE_FIELDS


class ProfileUpsert(ProfileFields):
    """The profile of a patient: created if its `unique_id` is unknown, else given fields overwrite and others stay."""

    unique_id: Identifier
    """Says which profile; an e-mail address or names alone do not."""
    date_created: ReadOnly = None
    last_updated: ReadOnly = None
