"""The messages that endpoints get: their types, bodies, ids and signatures (Standard Webhooks 1.0)."""

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Collection
from fnmatch import fnmatchcase
from typing import NamedTuple

from app.changes.reading import Change

SECRET_PREFIX = "whsec_"  # noqa: S105  # not a secret itself
SECRET_SIZE_BYTES = 32
TEST_TYPE = "webhook.test"
RECORD_ACTIONS = ("created", "updated", "deleted", "restored", "erased")
PATIENT_ACTIONS = ("merged", "unmerged", "affected", "entered", "left")
"""The actions in the types of messages: those of all records, and those of patients only.

A later version may send other actions to endpoints that ask for all.
"""
EVENT_TYPES = (
    *(f"{noun}.{action}" for noun in ("patient", "profile", "hospital", "doctor") for action in RECORD_ACTIONS),
    *(f"patient.{action}" for action in PATIENT_ACTIONS),
)
_PATTERN = re.compile(r"\*|[a-z]+\.(?:[a-z]+|\*)")


class Message(NamedTuple):
    """A message for one endpoint. It has the same id each time it is sent."""

    id: str
    body: bytes


def new_secret() -> bytes:
    """Return a random secret."""
    return secrets.token_bytes(SECRET_SIZE_BYTES)


def format_secret(secret: bytes) -> str:
    """Return a secret as receivers configure it."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def is_event_pattern(text: str) -> bool:
    """Return whether a text is `*`, or matches at least one type of event, such as `patient.*` or `patient.created`."""
    return _PATTERN.fullmatch(text) is not None and any(fnmatchcase(name, text) for name in EVENT_TYPES)


def event_type(change: Change) -> str:
    """Return the type of a change, such as `patient.updated`."""
    return f"{change.resource.removesuffix('s')}.{change.action}"


def is_selected(change: Change, patterns: Collection[str]) -> bool:
    """Return whether an endpoint with these patterns gets a change."""
    return any(fnmatchcase(event_type(change), pattern) for pattern in patterns)


def change_message(endpoint_id: str, change: Change, *, with_position: bool) -> Message:
    """Return the message about a change. It names the record, so that the receiver can read it with its own rights."""
    data: dict[str, object] = {
        "resource": change.resource,
        "unique_id": change.unique_id,
        "version": change.version,
        "position": change.feed_position.position if with_position else None,
    }
    if change.into is not None:
        data["into"] = change.into
    if change.source is not None:
        data["because"] = change.source._asdict()
        data["patients"] = change.patients
    # the position of the change identifies it, also among those that a restored database had at the same position
    identity = f"{endpoint_id} {change.feed_position.position} {change.feed_position.batch}"
    message_id = base64.b32encode(hashlib.sha256(identity.encode()).digest()[:20]).decode().lower()
    return Message(f"msg_{message_id}", _encode(event_type(change), change.time, data))


def test_message(time: str) -> Message:
    """Return a message by which an operator checks an endpoint."""
    return Message(f"msg_{secrets.token_hex(16)}", _encode(TEST_TYPE, time, {}))


def _encode(message_type: str, timestamp: str, data: dict[str, object]) -> bytes:
    return json.dumps({"type": message_type, "timestamp": timestamp, "data": data}, separators=(",", ":")).encode()


def signed_headers(message: Message, secrets_in_use: Collection[bytes], timestamp: int) -> dict[str, str]:
    """Return the headers of an attempt to send a message at `timestamp`, in seconds since 1970.

    There is a signature for each secret in use, so that a receiver can verify one of them while secrets rotate.
    """
    signed = b"%b.%d.%b" % (message.id.encode(), timestamp, message.body)
    digests = [hmac.digest(secret, signed, "sha256") for secret in secrets_in_use]
    return {
        "Content-Type": "application/json",
        "Webhook-Id": message.id,
        "Webhook-Timestamp": str(timestamp),
        "Webhook-Signature": " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests),
    }
