"""Cursors: opaque tokens that say where a page of a list begins.

Cursors are sealed (encrypted and authenticated with AES-SIV, RFC 5297), so that clients can neither read nor forge
them. A cursor also contains the parameters of the list, such as its filters. Links to other pages therefore do not
repeat the filters, which may contain people's names. A cursor is bound to the path of the list and to the principal
that requested it: with any other path or principal it is rejected, whatever else the request contains. Each cursor has
its own nonce, so that two cursors do not reveal whether they have the same content.
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
from pydantic_core import to_json
from sqlalchemy import select

from app.auth.principal import Principal
from app.db.database import Database
from app.errors import FieldError, ValidationFailedError
from app.listing.pagination import MAX_CURSOR_LENGTH
from app.models import service_secrets

P = TypeVar("P", bound=BaseModel)
CURSOR_VERSION = b"3"
"""Version of the cursor format. Cursors with a different version are rejected."""
NONCE_SIZE_BYTES = 16
"""Size of the nonce, which precedes the encrypted content of a cursor.

The nonce is the last component of the associated data, as RFC 5297, section 3, specifies.
"""
PADDING_BLOCK_SIZE_BYTES = 64
"""Block size to which the content of a cursor is padded.

Without padding, the length of a cursor would reveal the length of the names in its filters.
"""

_SELECT_KEY = select(service_secrets.c.value).where(service_secrets.c.name == "cursors")
PAGING_PARAMETERS = {"limit", "cursor", "count"}
"""The parameters that control paging and counting, and do not select records. Cursors do not contain them."""


class InvalidCursorError(Exception):
    """A token was not made by this service for the purpose for which it is sent."""


def non_paging_parameters(parameters: BaseModel) -> dict[str, Any]:
    """Return the parameters that select and order the records of a list, as JSON values by name.

    Parameters that are None are left out.
    """
    if parameters.model_fields_set <= PAGING_PARAMETERS:
        return {}  # what pages of unfiltered lists have, without a walk through all fields of the model
    return parameters.model_dump(mode="json", exclude=PAGING_PARAMETERS, exclude_none=True)


class Cursors:
    """Creates and opens cursors. The key is stored in the database, so that all processes use the same key."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._cipher: AESSIV | None = None

    async def _get_cipher(self) -> AESSIV:
        if self._cipher is None:
            async with self._database.read() as connection:
                self._cipher = AESSIV((await connection.execute(_SELECT_KEY)).scalar_one())
        return self._cipher

    async def encrypt(self, content: Any, associated_data: Sequence[bytes]) -> str:
        """Return a token with `content`, a JSON value, that only `decrypt` with the same associated data opens."""
        text = to_json(content)
        text = text.ljust(
            -(-len(text) // PADDING_BLOCK_SIZE_BYTES) * PADDING_BLOCK_SIZE_BYTES
        )  # padded with spaces, which JSON parsers ignore
        nonce = randomness.token_bytes(NONCE_SIZE_BYTES)
        sealed = (await self._get_cipher()).encrypt(text, [CURSOR_VERSION, *associated_data, nonce])
        return base64.urlsafe_b64encode(nonce + sealed).decode().rstrip("=")

    async def decrypt(self, token: str, associated_data: Sequence[bytes]) -> Any:
        """Return the content of a token from `encrypt`.

        Raises:
            InvalidCursorError: the token was not made by this service, or with other associated data.
        """
        try:
            sealed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
            nonce, sealed = sealed[:NONCE_SIZE_BYTES], sealed[NONCE_SIZE_BYTES:]
            return json.loads((await self._get_cipher()).decrypt(sealed, [CURSOR_VERSION, *associated_data, nonce]))
        except (binascii.Error, InvalidTag, ValueError):
            raise InvalidCursorError from None

    async def seal(
        self, path: str, principal: Principal, after: Any, parameters: BaseModel, location: str = "query"
    ) -> str:
        """Return a cursor for the page that starts after the position `after`, which is a JSON value.

        If `after` is None, the page starts at the beginning of the list. Only requests of `principal` for the list at
        `path` can use the cursor. It contains the list's `parameters`. `location` is the part of the request that
        contains these parameters, `query` or `body`; error messages refer to it.

        Raises:
            ValidationFailedError: the parameters are so long that the cursor would exceed `MAX_CURSOR_LENGTH`.
        """
        cursor = await self.encrypt([after, non_paging_parameters(parameters)], _associated_data(path, principal))
        if len(cursor) > MAX_CURSOR_LENGTH:
            message = "Ask for less at once: so many values are too long for the cursor of the next page"
            longest_parameter = max(non_paging_parameters(parameters).items(), key=lambda item: len(str(item[1])))[0]
            raise ValidationFailedError([FieldError((location, longest_parameter), message, "too_long_for_pages")])
        return cursor

    async def open(
        self, path: str, principal: Principal, cursor: str | None, parameters: P, location: str = "query"
    ) -> tuple[Any, P]:
        """Return the position after which the page of a request begins, and the parameters of the list.

        The position is None if the page begins at the start of the list. Parameters that the request omits are taken
        from the cursor. If `cursor` is None, `parameters` are returned unchanged. `location` is the part of the request
        that contains the parameters, `query` or `body`; error messages refer to it.

        Raises:
            ValidationFailedError: the cursor is not valid for this list and `principal`, or `parameters` contradict the
                cursor.
        """
        if cursor is None:
            return None, parameters
        try:
            after, sealed_parameters = await self.decrypt(cursor, _associated_data(path, principal))
            opened_parameters = parameters
            if sealed_parameters:
                opened_parameters = parameters.model_validate(
                    {**parameters.model_dump(include=PAGING_PARAMETERS), **sealed_parameters}
                )
        except (InvalidCursorError, ValidationError):
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
    """Return the associated data, which binds a cursor to the path and the principal.

    Each value is a separate component, so that no value can be mistaken for a part of another one.
    """
    hospitals = b"null" if principal.hospitals is None else json.dumps(sorted(principal.hospitals)).encode()
    return [path.encode(), principal.name.encode(), hospitals]
