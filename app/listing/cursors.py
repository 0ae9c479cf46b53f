"""Cursors: where a page begins, sealed so that they tell nothing and cannot be made up (AES-SIV, RFC 5297).

A cursor holds what the list was asked for besides, so that the links to other pages need not: filters may name people.
It is bound to the path of its list and to the principal that asked: for any other it is no cursor at all, whatever else
the request says. Each has a nonce of its own, so that two cursors do not tell whether they are of the same place.
"""

import base64
import binascii
import json
import secrets as randomness
from collections.abc import Sequence
from typing import Any, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from pydantic import BaseModel, ValidationError
from sqlalchemy import select

from app.auth.principal import Principal
from app.db.database import Database
from app.errors import FieldError, ValidationFailedError
from app.listing.pagination import MAX_CURSOR_LENGTH
from app.models import service_secrets

P = TypeVar("P", bound=BaseModel)
CURSOR_VERSION = b"3"
"""Of what is sealed; cursors of another version of the service are no cursors to this one."""
NONCE_SIZE_BYTES = 16
"""Before what is sealed; RFC 5297, section 3, has the nonce as the last of the associated data."""
PADDING_BLOCK_SIZE_BYTES = 64
"""Bytes: what is sealed has a multiple of it, so that the length of a cursor tells no length of a name."""

_SELECT_KEY = select(service_secrets.c.value).where(service_secrets.c.name == "cursors")
PAGING_PARAMETERS = {"limit", "cursor", "count"}
"""The parameters that say how much of a list is wanted, not of what."""


def non_paging_parameters(parameters: BaseModel) -> dict[str, Any]:
    """What of a list is wanted, as JSON has it."""
    return parameters.model_dump(mode="json", exclude=PAGING_PARAMETERS, exclude_none=True)


class Cursors:
    """Seals and opens cursors, with a key that is in the database, so that all processes have the same."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._cipher: AESSIV | None = None

    async def _get_cipher(self) -> AESSIV:
        if self._cipher is None:
            async with self._database.read() as connection:
                self._cipher = AESSIV((await connection.execute(_SELECT_KEY)).scalar_one())
        return self._cipher

    async def seal(
        self, path: str, principal: Principal, after: Any, parameters: BaseModel, location: str = "query"
    ) -> str:
        """The `principal`'s cursor of the page after a place, as JSON has it, in the list that `parameters` ask for.

        Raises:
            InvalidError: it would be too long; the parameters are `where`.
        """
        content = json.dumps([after, non_paging_parameters(parameters)], ensure_ascii=False).encode()
        content = content.ljust(
            -(-len(content) // PADDING_BLOCK_SIZE_BYTES) * PADDING_BLOCK_SIZE_BYTES
        )  # with blanks, which JSON leaves out of account
        nonce = randomness.token_bytes(NONCE_SIZE_BYTES)
        sealed = (await self._get_cipher()).encrypt(content, [*_associated_data(path, principal), nonce])
        cursor = base64.urlsafe_b64encode(nonce + sealed).decode().rstrip("=")
        if len(cursor) > MAX_CURSOR_LENGTH:
            message = "Ask for less at once: so many values are too long for the cursor of the next page"
            longest_parameter = max(non_paging_parameters(parameters).items(), key=lambda item: len(str(item[1])))[0]
            raise ValidationFailedError([FieldError((location, longest_parameter), message, "too_long_for_pages")])
        return cursor

    async def open(
        self, path: str, principal: Principal, cursor: str | None, parameters: P, location: str = "query"
    ) -> tuple[Any, P]:
        """The place after which the page begins, None for the beginning, and what was asked for, if not said again.

        Raises:
            InvalidError: it is no cursor of this list and `principal`, or `parameters`, which are `where`, contradict
                it.
        """
        if cursor is None:
            return None, parameters
        try:
            sealed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
            nonce, sealed = sealed[:NONCE_SIZE_BYTES], sealed[NONCE_SIZE_BYTES:]
            content = (await self._get_cipher()).decrypt(sealed, [*_associated_data(path, principal), nonce])
            after, sealed_parameters = json.loads(content)
            opened_parameters = parameters.model_validate(
                {**parameters.model_dump(include=PAGING_PARAMETERS), **sealed_parameters}
            )
        except (binascii.Error, InvalidTag, ValueError, ValidationError):
            message = "Must be a cursor from the headers of an earlier page of this list"
            raise ValidationFailedError([FieldError((location, "cursor"), message, "cursor")]) from None
        contradicting = [
            name for name, value in non_paging_parameters(parameters).items() if sealed_parameters.get(name) != value
        ]
        if contradicting:
            message = "Is not what the cursor's list was asked for: leave it out, or the cursor"
            raise ValidationFailedError(
                [FieldError((location, name), message, "cursor_contradicted") for name in contradicting]
            )
        return after, opened_parameters


def _associated_data(path: str, principal: Principal) -> Sequence[bytes]:
    """What a cursor is bound to: as associated data, each its own, so that none can pass for a part of another."""
    hospitals = None if principal.hospitals is None else sorted(principal.hospitals)
    return [CURSOR_VERSION, path.encode(), principal.name.encode(), json.dumps(hospitals).encode()]
