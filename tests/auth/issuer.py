"""A configurable, misbehaving identity provider that listens on its own port."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

AUDIENCE = "patients-api"
DISCOVERY_PATH = "/.well-known/openid-configuration"
JWKS_PATH = "/keys"
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def public_jwk(kid: str, key: PrivateKey) -> dict[str, Any]:
    """Return the public half of a key, as a JWKS lists it."""
    if isinstance(key, rsa.RSAPrivateKey):
        public: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
        return {**public, "kid": kid, "use": "sig", "alg": "RS256"}
    public = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {**public, "kid": kid, "use": "sig", "alg": "ES256"}


@dataclass
class Issuer:
    """The responses of the issuer, and the paths that were requested from it."""

    url: str = ""
    key: PrivateKey = field(default_factory=new_key)
    jwks: list[Any] = field(default_factory=list)
    response_overrides: dict[str, tuple[int, dict[str, str], Any]] = field(default_factory=dict)
    """The status, headers and document to return instead, by path."""
    requested_paths: list[str] = field(default_factory=list)

    may_respond: threading.Event = field(default_factory=threading.Event)
    """While it is not set, every request waits."""

    def __post_init__(self) -> None:
        self.may_respond.set()
        self.jwks = self.jwks or [public_jwk("key-1", self.key)]

    def claims(self, **overrides: Any) -> dict[str, Any]:
        """Return the claims of a valid token, with `overrides` applied; a value of None omits the claim."""
        now = int(time.time())
        defaults = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "alice",
            "exp": now + 600,
            "iat": now,
            "scope": "patients:read",
        }
        return {name: value for name, value in {**defaults, **overrides}.items() if value is not None}

    def token(self, *, key: Any = None, kid: Any = "key-1", algorithm: str | None = None, **overrides: Any) -> str:
        """Return a signed token."""
        algorithm = algorithm or ("RS256" if isinstance(self.key, rsa.RSAPrivateKey) else "ES256")
        headers = {} if kid is None else {"kid": kid}
        return jwt.encode(self.claims(**overrides), key or self.key, algorithm, headers)

    def response_for(self, path: str) -> tuple[int, dict[str, str], Any]:
        self.requested_paths.append(path)
        assert self.may_respond.wait(10)
        documents = {
            DISCOVERY_PATH: {"issuer": self.url, "jwks_uri": f"{self.url}{JWKS_PATH}"},
            JWKS_PATH: {"keys": self.jwks},
        }
        return self.response_overrides.get(path) or (
            (200, {}, documents[path]) if path in documents else (404, {}, None)
        )


@contextmanager
def run_issuer(issuer: Issuer, port: int = 0) -> Iterator[ThreadingHTTPServer]:
    """Run the issuer until the context ends; after that, nothing listens on its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, document = issuer.response_for(self.path)
            content = json.dumps(document).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        issuer.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
