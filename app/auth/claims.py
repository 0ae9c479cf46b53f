"""What an access token may say: its header and its claims, as strictly as the body of a request.

PyJWT turns text and booleans into numbers, takes the last of two equal names, and passes on whatever else there is. A
signature vouches for who made the token, not for what was put into it: names and attributes come from people.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from jwt.utils import base64url_decode
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from app.errors import InvalidTokenError
from app.fields.types import Identifier
from app.http.strict_json import InvalidJSONError, parse_json

ALLOWED_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Asymmetric ones only: with a symmetric one, the provider's public key would be the secret."""
MAX_CLAIM_VALUES = 1000
"""Of a list in a claim, hospitals among them: each statement for a limited principal has all of its hospitals."""
MAX_TIMESTAMP_SECONDS = 253_402_300_799
"""The last second of the year 9999, the last that Python's datetime has."""

_ACCESS_TOKEN_TYPE_PATTERN = re.compile(r"(?:application/)?(?:at\+)?jwt", re.IGNORECASE)
"""RFC 9068, section 2.1, and what providers wrote before it. Other kinds of tokens must not pass for access tokens
(RFC 8725, section 3.11): a `logout+jwt` has the same issuer, audience and keys."""


def _check_token_type(token_type: str) -> str:
    if _ACCESS_TOKEN_TYPE_PATTERN.fullmatch(token_type) is None:
        raise PydanticCustomError("another_kind", "Is not an access token")
    return token_type


def _check_algorithm(algorithm: str) -> str:
    if algorithm not in ALLOWED_ALGORITHMS:
        raise PydanticCustomError("algorithm", "Is not one of the algorithms that are trusted")
    return algorithm


def _split_values(value: object) -> object:
    """The values of a claim: a list of them, or a string with spaces between (RFC 8693, section 4.2)."""
    # at spaces alone: what else Unicode takes for blank is part of a word, and makes it an unknown one
    return [word for word in value.split(" ") if word] if isinstance(value, str) else value


_UNSUPPORTED_HEADER_PARAMETERS = frozenset({"b64", "crit", "zip"})
"""Header parameters that change how the rest is to be read (RFC 7797; RFC 7515, section 4.1.11; RFC 7516)."""
_REGISTERED_CLAIM_NAMES = {name: name for name in ("iss", "aud", "sub", "exp", "nbf", "iat")}

NumericDate = Annotated[float, Field(ge=0, le=MAX_TIMESTAMP_SECONDS, allow_inf_nan=False)]
"""Seconds since 1970 (RFC 7519, section 2)."""
_ClaimValues = Annotated[list[str], Field(max_length=MAX_CLAIM_VALUES), BeforeValidator(_split_values)]
_HospitalIds = Annotated[list[Identifier], Field(max_length=MAX_CLAIM_VALUES), BeforeValidator(_split_values)]


class TokenHeader(BaseModel):
    """The header of a token. Parameters that it does not have here are not looked at, keys among them."""

    model_config = ConfigDict(strict=True, frozen=True, hide_input_in_errors=True)

    alg: Annotated[str, AfterValidator(_check_algorithm)]
    kid: Annotated[str, Field(max_length=1000)]
    typ: Annotated[str, AfterValidator(_check_token_type)] = "JWT"


class Claims(BaseModel):
    """The claims of a token that the service looks at."""

    model_config = ConfigDict(strict=True, frozen=True, hide_input_in_errors=True)

    iss: str
    aud: str | Annotated[list[str], Field(max_length=MAX_CLAIM_VALUES)]
    sub: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,255}$")]
    """OpenID Connect Core, section 2: at most 255 ASCII characters."""
    exp: NumericDate
    nbf: NumericDate = 0
    iat: NumericDate = 0
    scope: _ClaimValues = []
    hospitals: _HospitalIds = []

    @property
    def has_hospitals(self) -> bool:
        """Whether there is a claim of hospitals: without one, it depends on other claims what that means."""
        return "hospitals" in self.model_fields_set


def read_header(token: str) -> TokenHeader:
    """The header of a token, which nobody has signed yet.

    Raises:
        InvalidTokenError: it is malformed, is of another kind of token, or asks for what is not understood.
    """
    try:
        header = _parse_object(base64url_decode(token.partition(".")[0]), "header")
    except ValueError:
        raise InvalidTokenError("header: it is not in base64url") from None
    for name in sorted(_UNSUPPORTED_HEADER_PARAMETERS & header.keys()):
        raise InvalidTokenError(f"header {name}: it is not understood")
    try:
        return TokenHeader.model_validate(header)
    except ValidationError as error:
        raise _invalid_token_error("header", error, {}) from None


def read_claims(payload: bytes, claim_names: Mapping[str, str]) -> Claims:
    """The claims of a token. `names` has what `scope` and `hospitals` are called in it; what is not there is not read.

    Raises:
        InvalidTokenError: a claim is missing or malformed; it is named.
    """
    claims = _parse_object(payload, "claims")
    claim_names = {**_REGISTERED_CLAIM_NAMES, **claim_names}
    try:
        return Claims.model_validate({field: claims[name] for field, name in claim_names.items() if name in claims})
    except ValidationError as error:
        raise _invalid_token_error("claim", error, claim_names) from None


def _parse_object(text: bytes, part: str) -> dict[str, Any]:
    try:
        value = parse_json(text, one_line=True)
    except InvalidJSONError:
        raise InvalidTokenError(f"{part}: it is no JSON, or names a key twice") from None
    if not isinstance(value, dict):
        raise InvalidTokenError(f"{part}: it is no JSON object")
    return value


def _invalid_token_error(part: str, error: ValidationError, claim_names: Mapping[str, str]) -> InvalidTokenError:
    """The error for the log: the name of what is wrong, and how, and nothing of the token."""
    first_error = error.errors(include_input=False, include_url=False, include_context=False)[0]
    field = str(first_error["loc"][0])
    return InvalidTokenError(f"{part} {claim_names.get(field, field)}: {first_error['type']}")
