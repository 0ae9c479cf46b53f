from app.profiles.repository import ProfileRepository
from app.profiles.schemas import ProfileCreate, ProfileUpdate
from app.resource.service import Service


class ProfileService(Service[ProfileCreate, ProfileUpdate]):
    repository_class = ProfileRepository
