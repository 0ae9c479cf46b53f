"""Parsing of the header and the claims of access tokens, which are validated as strictly as request bodies.

PyJWT alone is not strict enough: it converts text and booleans to numbers, uses the last of two equal keys, and passes
on unknown claims. A signature proves which provider issued a token, but not that the content is harmless, because
people enter the names and attributes that a token contains.
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
"""The signature algorithms that are accepted. All are asymmetric, because with a symmetric algorithm a token could be
signed with the provider's public key as the secret."""
MAX_CLAIM_VALUES = 1000
"""Maximum number of values in one claim, such as the hospitals of a principal. The number is bounded because every SQL
statement for a restricted principal contains all its hospitals."""
MAX_TIMESTAMP_SECONDS = 253_402_300_799
"""Unix timestamp of the last second of the year 9999, which is the latest that Python's `datetime` can represent."""

_ACCESS_TOKEN_TYPE_PATTERN = re.compile(r"(?:application/)?(?:at\+)?jwt", re.IGNORECASE)
"""Pattern of the `typ` header parameter of access tokens. It matches the types of RFC 9068, section 2.1, and the types
that providers used before that RFC. Other kinds of tokens, such as `logout+jwt`, must not be accepted as access
tokens, even if they have the same issuer, audience and keys (RFC 8725, section 3.11)."""


def _check_token_type(token_type: str) -> str:
    if _ACCESS_TOKEN_TYPE_PATTERN.fullmatch(token_type) is None:
        raise PydanticCustomError("not_an_access_token", "Is not an access token")
    return token_type


def _check_algorithm(algorithm: str) -> str:
    if algorithm not in ALLOWED_ALGORITHMS:
        raise PydanticCustomError("algorithm", "Is not a trusted algorithm")
    return algorithm


def _split_values(value: object) -> object:
    """Split a space-separated string (RFC 8693, section 4.2) into its values. Return any other value unchanged."""
    # split at spaces only: a value that contains other Unicode whitespace is not split, and so matches no scope
    return [word for word in value.split(" ") if word] if isinstance(value, str) else value


_UNSUPPORTED_HEADER_PARAMETERS = frozenset({"b64", "crit", "zip"})
"""Header parameters that change how the rest of a token must be parsed (RFC 7797; RFC 7515, section 4.1.11; RFC 7516).
Tokens that have one of these parameters are rejected."""
_REGISTERED_CLAIM_NAMES = {name: name for name in ("iss", "aud", "sub", "exp", "nbf", "iat")}

NumericDate = Annotated[float, Field(ge=0, le=MAX_TIMESTAMP_SECONDS, allow_inf_nan=False)]
"""A timestamp in a claim, in seconds since the beginning of 1970 in UTC (RFC 7519, section 2)."""
_ClaimValues = Annotated[list[str], Field(max_length=MAX_CLAIM_VALUES), BeforeValidator(_split_values)]
_HospitalIds = Annotated[list[Identifier], Field(max_length=MAX_CLAIM_VALUES), BeforeValidator(_split_values)]


class TokenHeader(BaseModel):
    """The header parameters that the service uses. All other parameters of a token are ignored, even embedded keys."""

    model_config = ConfigDict(strict=True, frozen=True, hide_input_in_errors=True)

    alg: Annotated[str, AfterValidator(_check_algorithm)]
    kid: Annotated[str, Field(max_length=1000)]
    typ: Annotated[str, AfterValidator(_check_token_type)] = "JWT"


class Claims(BaseModel):
    """The claims that the service uses. All other claims of a token are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, hide_input_in_errors=True)

    iss: str
    aud: str | Annotated[list[str], Field(max_length=MAX_CLAIM_VALUES)]
    sub: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,255}$")]
    """The subject of the token: at most 255 ASCII characters (OpenID Connect Core, section 2)."""
    exp: NumericDate
    nbf: NumericDate = 0
    iat: NumericDate = 0
    scope: _ClaimValues = []
    hospitals: _HospitalIds = []

    @property
    def has_hospitals(self) -> bool:
        """Whether the token has a hospitals claim, even an empty one. The caller decides what a missing claim means."""
        return "hospitals" in self.model_fields_set


def read_header(token: str) -> TokenHeader:
    """Parse and return the header of a token whose signature has not been verified yet.

    Raises:
        InvalidTokenError: the header is malformed, has an unsupported parameter, or belongs to another kind of token.
    """
    try:
        header = _parse_object(base64url_decode(token.partition(".")[0]), "header")
    except ValueError:
        raise InvalidTokenError("header: not in base64url") from None
    for name in sorted(_UNSUPPORTED_HEADER_PARAMETERS & header.keys()):
        raise InvalidTokenError(f"header {name}: not supported")
    try:
        return TokenHeader.model_validate(header)
    except ValidationError as error:
        raise _invalid_token_error("header", error, {}) from None


def read_claims(payload: bytes, claim_names: Mapping[str, str]) -> Claims:
    """Parse and return the claims in the payload of a token.

    `claim_names` maps `scope` and `hospitals` to the names that these two claims have in the token. If one of the two
    is not in `claim_names`, it is not read from the token.

    Raises:
        InvalidTokenError: a claim is missing or malformed. The message names this claim.
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
        raise InvalidTokenError(f"{part}: not valid JSON, or a key is repeated") from None
    if not isinstance(value, dict):
        raise InvalidTokenError(f"{part}: not a JSON object")
    return value


def _invalid_token_error(part: str, error: ValidationError, claim_names: Mapping[str, str]) -> InvalidTokenError:
    """Return an error for the first invalid claim or parameter.

    The message names this claim or parameter and the type of the error, but contains no value.
    """
    first_error = error.errors(include_input=False, include_url=False, include_context=False)[0]
    field = str(first_error["loc"][0])
    return InvalidTokenError(f"{part} {claim_names.get(field, field)}: {first_error['type']}")
