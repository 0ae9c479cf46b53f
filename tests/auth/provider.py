"""An identity provider from a package, run in its own process: `python -m tests.auth.provider PORT`."""

import sys

import oidc_provider_mock
from oidc_provider_mock._app import OpenIDCode, storage


def header_with_key_id(_: OpenIDCode, __: object) -> dict[str, str]:
    """Return the header of a token with the key id, which the package omits because it has only one key."""
    return {"alg": "RS256", "kid": storage.jwk.thumbprint()}


if __name__ == "__main__":
    OpenIDCode.get_encode_header = header_with_key_id
    oidc_provider_mock.app().run(port=int(sys.argv[1]), use_reloader=False)
