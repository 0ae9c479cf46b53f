from collections.abc import Mapping
from typing import Any

from app.errors import ForbiddenError
from app.profiles.repository import ProfileRepository
from app.profiles.schemas import ProfileCreate, ProfileUpdate
from app.records.preconditions import NO_PRECONDITION, Precondition
from app.records.results import Record
from app.records.service import Service


class ProfileService(Service[ProfileCreate, ProfileUpdate]):
    repository_class = ProfileRepository

    async def create(
        self,
        body: ProfileCreate,
        precondition: Precondition = NO_PRECONDITION,
        timestamps: Mapping[str, Any] | None = None,
    ) -> Record:
        """Create a profile that is not linked to any patient yet.

        Raises:
            ForbiddenError: the principal is restricted to hospitals and could therefore not see the profile.
            IdentifierTakenError, IdentifierRetiredError, PreconditionFailedError: see `Service.create`.
        """
        if self.repository.restricted:
            raise ForbiddenError(
                "Your credentials are restricted to hospitals, so you cannot create a profile by itself. "
                "Send it as patient_profile."
            )
        return await super().create(body, precondition, timestamps)
