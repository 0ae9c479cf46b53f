"""An identity provider, from a package, in a process of its own: `python -m tests.auth.provider PORT`."""

import sys

import oidc_provider_mock
from oidc_provider_mock._app import OpenIDCode, storage


def header_with_key_id(_: OpenIDCode, __: object) -> dict[str, str]:
    """The header of a token. The package's own leaves out which key signed: it has but one."""
    return {"alg": "RS256", "kid": storage.jwk.thumbprint()}


if __name__ == "__main__":
    OpenIDCode.get_encode_header = header_with_key_id
    oidc_provider_mock.app().run(port=int(sys.argv[1]), use_reloader=False)
