"""Request and response bodies of profiles, including the profile that is sent as a part of a patient."""

from typing import Annotated

from app import contract
from app.fields.schemas import CreateBody, ReadOnly, Representation, RequestBody, UpdateBody
from app.fields.types import Email, Identifier, Text, Timestamp
from app.models import Profile as ProfileRow

columns = ProfileRow.__table__.c


class ProfileFields(RequestBody):
    """The fields of a profile that clients can set."""

    email: Annotated[str | None, Email(columns.email)] = None
    first_name: Annotated[str | None, Text(columns.first_name)] = None
    last_name: Annotated[str | None, Text(columns.last_name)] = None


class Profile(Representation):
    """A profile, which is an account that patients can be linked to."""

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
    """The changes to a profile. Absent fields are left unchanged."""

    example = contract.PROFILE_FIELDS


class ProfileUpsert(ProfileFields):
    """A patient's profile. If no profile has this `unique_id`, a new profile is created.

    Otherwise, the existing profile is updated with the given fields, and absent fields are left unchanged.
    """

    unique_id: Identifier
    """The id of the profile. It is required, because an e-mail address or a name does not identify a profile."""
    date_created: ReadOnly = None
    last_updated: ReadOnly = None
