"""Request and response bodies of profiles, including the profile that is sent as a part of a patient."""

from typing import Annotated, ClassVar, Literal

from typing_extensions import TypeAliasType

from app import contract
from app.fields.schemas import CreateBody, ReadOnly, Representation, RequestBody, SearchBody, UpdateBody
from app.fields.selection import FieldsOf
from app.fields.types import Email, Identifier, OneOrMany, Text, Timestamp
from app.models import Profile as ProfileRow
from app.search.parameters import NameListParameters

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

    Otherwise, the fields in the request replace those of the existing profile, and absent fields are left unchanged.
    """

    unique_id: Identifier
    """The id of the profile. It is required, because an e-mail address or a name does not identify a profile."""
    date_created: ReadOnly = None
    last_updated: ReadOnly = None


ProfileOrdering = TypeAliasType(
    "ProfileOrdering",
    Literal["unique_id", "-unique_id", "email", "-email", "first_name", "-first_name", "last_name", "-last_name"],
)
"""The field that a list of profiles is sorted by, with a leading `-` for descending order."""


class ProfileParameters(NameListParameters):
    """The parameters that select and sort the profiles of a list. A profile must meet all conditions."""

    search_column: ClassVar = "profile_search"

    fields: Annotated[list[str] | None, FieldsOf(Profile)] = None
    ordering: ProfileOrdering | None = None
    """The field to sort the list by. Profiles with equal values are sorted by `unique_id`. A leading `-` means
    descending order. Profiles without a value come last in either order."""
    email: OneOrMany[Annotated[str, Email(columns.email)]] | None = None
    """Profiles with this e-mail address. The whole value must match. Case is ignored."""
    email__startswith: OneOrMany[Annotated[str, Text(columns.email)]] | None = None
    """Profiles with an e-mail address that starts with this text. Case is ignored."""
    first_name: OneOrMany[Annotated[str, Text(columns.first_name)]] | None = None
    """Profiles with this first name. The whole value must match. Case and accents are ignored."""
    first_name__startswith: OneOrMany[Annotated[str, Text(columns.first_name)]] | None = None
    """Profiles with a first name that starts with this text. Case and accents are ignored."""
    last_name: OneOrMany[Annotated[str, Text(columns.last_name)]] | None = None
    """Profiles with this last name. The whole value must match. Case and accents are ignored."""
    last_name__startswith: OneOrMany[Annotated[str, Text(columns.last_name)]] | None = None
    """Profiles with a last name that starts with this text. Case and accents are ignored."""


class ProfileSearch(ProfileParameters, SearchBody):
    """The parameters of `GET /profiles/profiles/`, in the body so that no personal data appear in a URL.

    The value of a filter may be a list. A profile then needs to match only one of its values.
    """

    example: ClassVar = {"email": "user@example.com", "limit": 20}
