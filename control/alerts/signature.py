"""Signatures of webhooks as Standard Webhooks says (symmetric, `v1`)."""

import base64
import hmac
from collections.abc import Iterable
from hashlib import sha256


def signature(keys: Iterable[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`: one signature for each key, divided by spaces."""
    signed = b"%b.%d.%b" % (message_id.encode("ascii"), timestamp, body)
    made = (hmac.new(key, signed, sha256).digest() for key in keys)
    return " ".join(f"v1,{base64.b64encode(one).decode('ascii')}" for one in made)
