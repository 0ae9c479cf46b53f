from collections.abc import Mapping
from typing import Any

from app.errors import ForbiddenError
from app.profiles.repository import ProfileRepository
from app.profiles.schemas import ProfileCreate, ProfileUpdate
from app.resource.preconditions import UNCONDITIONAL, Precondition
from app.resource.repository import Record
from app.resource.service import Service


class ProfileService(Service[ProfileCreate, ProfileUpdate]):
    repository_class = ProfileRepository

    async def create(
        self,
        body: ProfileCreate,
        precondition: Precondition = UNCONDITIONAL,
        moments: Mapping[str, Any] | None = None,
    ) -> Record:
        """Create a profile that no patient is linked to yet.

        Raises:
            ForbiddenError: the principal is limited to hospitals, and would not see it.
            IdentifierTakenError, IdentifierRetiredError, PreconditionFailedError: as `Service.create`.
        """
        if self.repository.limited:
            raise ForbiddenError(
                "Who is limited to hospitals creates profiles with their patients: send it as patient_profile."
            )
        return await super().create(body, precondition, moments)
