from collections.abc import Mapping
from typing import Any

from app.errors import ForbiddenError
from app.profiles.repository import ProfileRepository
from app.profiles.schemas import ProfileCreate, ProfileUpdate
from app.records.preconditions import NO_PRECONDITION, Precondition
from app.records.repository import Record
from app.records.service import Service


class ProfileService(Service[ProfileCreate, ProfileUpdate]):
    repository_class = ProfileRepository

    async def create(
        self,
        body: ProfileCreate,
        precondition: Precondition = NO_PRECONDITION,
        timestamps: Mapping[str, Any] | None = None,
    ) -> Record:
        """Create a profile that no patient is linked to yet.

        Raises:
            ForbiddenError: the principal is limited to hospitals, and would not see it.
            IdentifierTakenError, IdentifierRetiredError, PreconditionFailedError: as `Service.create`.
        """
        if self.repository.restricted:
            raise ForbiddenError(
                "Who is limited to hospitals creates profiles with their patients: send it as patient_profile."
            )
        return await super().create(body, precondition, timestamps)
