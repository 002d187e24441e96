"""What the secrets of alert destinations have to be. No error here quotes a value."""

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from credentials.secret import Secret
from rules.alerts.destination import DEFAULT_PORTS, SLACK, WEBHOOK, AlertDestination
from rules.policy.hosts import normalise_host
from rules.policy.invalid import ValueInvalid

PREFIX: Final = "whsec_"
SHORTEST_KEY: Final = 24
LONGEST_KEY: Final = 64
"""Bytes; both from Standard Webhooks, which wants 192 to 512 bits."""
_HOOK: Final = re.compile(
    r"https://([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?(/[\x21-\x7e]{0,1024})?"
)


class AlertSecretUnusable(Exception):
    """A secret is not what its destination needs; says what to set instead, and nothing of the value."""


@dataclass(frozen=True, slots=True, repr=False)
class HookAddress:
    """Where a hook is whose address is the secret. Shown nowhere."""

    host: str
    port: int
    path: str


def signing_key(secret: Secret) -> bytes:
    """The key that a webhook is signed with. Raises `AlertSecretUnusable`."""
    try:
        text = secret.reveal().decode("ascii").removeprefix(PREFIX)
        key = base64.b64decode(text, validate=True)
    except (UnicodeDecodeError, binascii.Error):
        key = b""
    if not SHORTEST_KEY <= len(key) <= LONGEST_KEY:
        raise AlertSecretUnusable(
            f"no signing key: {PREFIX} and the base64 of {SHORTEST_KEY} to {LONGEST_KEY} random bytes, such as "
            f"`echo {PREFIX}$(openssl rand -base64 32)` prints"
        )
    return key


def hook_address(secret: Secret) -> HookAddress:
    """The address that is the secret of a Slack hook. Raises `AlertSecretUnusable`."""
    try:
        found = _HOOK.fullmatch(secret.reveal().decode("ascii"))
        if found is not None:
            host, port = normalise_host(found[1]), int(found[2] or DEFAULT_PORTS["https"])
            if 0 < port < 65536 and "#" not in (found[3] or ""):
                return HookAddress(host, port, found[3] or "/")
    except (UnicodeDecodeError, ValueInvalid):
        pass
    raise AlertSecretUnusable("no address of a hook: the whole https:// address, as the service shows it")


def check_secret(destinations: Iterable[AlertDestination], name: str, secret: Secret) -> None:
    """The secret can be used by whatever destination names it. Raises `AlertSecretUnusable`."""
    for destination in destinations:
        if name in destination.secrets:
            if destination.kind == WEBHOOK:
                signing_key(secret)
            elif destination.kind == SLACK:
                hook_address(secret)
