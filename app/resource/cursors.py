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
from app.db.session import Database
from app.errors import FieldError, InvalidError
from app.models import secrets

P = TypeVar("P", bound=BaseModel)
FORMAT = b"3"
"""Of what is sealed; cursors of another version of the service are no cursors to this one."""
LONGEST = 4000
"""Characters: with more, links would be refused on their way."""
CURSOR = "^[A-Za-z0-9_-]+$"
"""Of what cursors consist; published only, as what has another character is no cursor all the same."""
NONCE_BYTES = 16
"""Before what is sealed; RFC 5297, section 3, has the nonce as the last of the associated data."""
BLOCK = 64
"""Bytes: what is sealed has a multiple of it, so that the length of a cursor tells no length of a name."""

_KEY = select(secrets.c.value).where(secrets.c.name == "cursors")
PAGING = {"limit", "cursor", "count"}
"""The parameters that say how much of a list is wanted, not of what."""


def wanted(parameters: BaseModel) -> dict[str, Any]:
    """What of a list is wanted, as JSON has it."""
    return parameters.model_dump(mode="json", exclude=PAGING, exclude_none=True)


class Cursors:
    """Seals and opens cursors, with a key that is in the database, so that all processes have the same."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._cipher: AESSIV | None = None

    async def _key(self) -> AESSIV:
        if self._cipher is None:
            async with self._database.read() as connection:
                self._cipher = AESSIV((await connection.execute(_KEY)).scalar_one())
        return self._cipher

    async def seal(
        self, path: str, principal: Principal, after: Any, parameters: BaseModel, where: str = "query"
    ) -> str:
        """The `principal`'s cursor of the page after a place, as JSON has it, in the list that `parameters` ask for.

        Raises:
            InvalidError: it would be too long; the parameters are `where`.
        """
        content = json.dumps([after, wanted(parameters)], ensure_ascii=False).encode()
        content = content.ljust(-(-len(content) // BLOCK) * BLOCK)  # with blanks, which JSON leaves out of account
        nonce = randomness.token_bytes(NONCE_BYTES)
        sealed = (await self._key()).encrypt(content, [*_bound(path, principal), nonce])
        cursor = base64.urlsafe_b64encode(nonce + sealed).decode().rstrip("=")
        if len(cursor) > LONGEST:
            message = "Ask for less at once: so many values are too long for the cursor of the next page"
            longest = max(wanted(parameters).items(), key=lambda item: len(str(item[1])))[0]
            raise InvalidError([FieldError((where, longest), message, "too_long_for_pages")])
        return cursor

    async def open(
        self, path: str, principal: Principal, cursor: str | None, parameters: P, where: str = "query"
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
            nonce, sealed = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
            content = (await self._key()).decrypt(sealed, [*_bound(path, principal), nonce])
            after, asked = json.loads(content)
            opened = parameters.model_validate({**parameters.model_dump(include=PAGING), **asked})
        except (binascii.Error, InvalidTag, ValueError, ValidationError):
            message = "Must be a cursor from the headers of an earlier page of this list"
            raise InvalidError([FieldError((where, "cursor"), message, "cursor")]) from None
        contradicting = [name for name, value in wanted(parameters).items() if asked.get(name) != value]
        if contradicting:
            message = "Is not what the cursor's list was asked for: leave it out, or the cursor"
            raise InvalidError([FieldError((where, name), message, "cursor_contradicted") for name in contradicting])
        return after, opened


def _bound(path: str, principal: Principal) -> Sequence[bytes]:
    """What a cursor is bound to: as associated data, each its own, so that none can pass for a part of another."""
    hospitals = None if principal.hospitals is None else sorted(principal.hospitals)
    return [FORMAT, path.encode(), principal.name.encode(), json.dumps(hospitals).encode()]
