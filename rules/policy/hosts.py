"""Host names as a policy writes them, in the one form that calls are compared in."""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

import idna

from rules.policy.addresses import parse_dial
from rules.policy.invalid import ValueInvalid

# RFC 1123 section 2.1: letters, digits, hyphen; RFC 1034 section 3.1: 63 octets a label, 253 a name.
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_MAX_NAME: Final = 253


def normalise_host(value: str) -> str:
    """The host in lower case, as A-labels (RFC 5891), without a trailing dot; an IP literal without brackets.

    ValueInvalid when the name is not one exact host. A name whose last label is a number is refused unless it is a
    plain dotted quad: resolvers read `2130706433`, `0x7f.1` and `127.1` as addresses.
    """
    if "*" in value:
        raise ValueInvalid("hosts are exact, there are no wildcards", "write one connection for each host")
    if "://" in value or "/" in value:
        raise ValueInvalid("a host, not a URL", "write the name only, such as api.example.com; rules name the path")
    if "@" in value:
        raise ValueInvalid("a host without a user", "write the name only; the secret goes into `secret`")
    literal = _literal(value)
    if literal is not None:
        return literal
    if ":" in value:
        raise ValueInvalid("a host without a port", "write the port under `port`")
    name = value.lower().removesuffix(".")
    if not name.isascii():
        try:
            name = idna.encode(name).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            raise ValueInvalid("not a valid international name", "write its A-labels (xn--...)") from None
    labels = name.split(".")
    if len(name) > _MAX_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueInvalid("not a host name", "write a name such as api.example.com: letters, digits, hyphens and dots")
    if labels[-1].isdigit() or re.fullmatch(r"0x[0-9a-f]*", labels[-1]):
        raise ValueInvalid("a number where a name should end", "write an address as four plain decimal numbers")
    for label in labels:
        if label.startswith("xn--"):
            try:
                idna.ulabel(label)
            except (idna.IDNAError, UnicodeError):
                raise ValueInvalid("not a valid international name", "check the label that starts with xn--") from None
    return name


def literal_address(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a normalised host is, None when it is a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def _literal(value: str) -> str | None:
    text = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    if literal_address(text) is None:
        return None
    address, _ = parse_dial(f"[{text}]" if ":" in text else text)
    return str(address)
