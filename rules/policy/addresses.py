"""Addresses and networks as a policy may write them.

This judges a policy's text only. Every address is judged again, by the egress, when it is dialled.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from rules.policy.invalid import ValueInvalid

type Address = IPv4Address | IPv6Address
type Network = IPv4Network | IPv6Network

NEVER: Final[tuple[tuple[str, str], ...]] = (
    # RFC 1122 section 3.2.1.3, RFC 4291 section 2.5.2
    ("0.0.0.0/8", "unspecified ('this network')"),
    ("::/128", "unspecified"),
    # RFC 3927, RFC 4291 section 2.5.6: link-local, where most clouds answer for instance metadata
    ("169.254.0.0/16", "link-local and cloud metadata"),
    ("fe80::/10", "link-local"),
    # The registries of special purposes (RFC 6890): nobody's, or a protocol's own
    ("192.0.0.0/24", "protocol assignments"),
    ("192.88.99.0/24", "6to4 relays"),
    ("100::/64", "discarded"),
    ("100:0:0:1::/64", "a dummy prefix"),
    ("2001::/23", "protocol assignments"),
    ("5f00::/16", "segment routing"),
    # RFC 5771, RFC 4291 section 2.7; RFC 8190 limited broadcast and reserved
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved and broadcast"),
    ("ff00::/8", "multicast"),
    # Metadata services outside link-local: Alibaba Cloud, Azure, Oracle Cloud, AWS and Google over IPv6
    ("100.100.100.200/32", "cloud metadata (Alibaba)"),
    ("168.63.129.16/32", "cloud metadata (Azure)"),
    ("192.0.0.192/32", "cloud metadata (Oracle)"),
    ("fd00:ec2::/32", "cloud metadata (AWS)"),
    ("fd20:ce::254/128", "cloud metadata (Google)"),
    # IPv6 forms that carry an IPv4 address past a check of the IPv4 one: RFC 4291 2.5.5, RFC 6052, RFC 8215, RFC 3056,
    # RFC 4380
    ("::ffff:0:0/96", "an IPv4 address in IPv6 dress"),
    ("::ffff:0:0:0/96", "an IPv4 address in IPv6 dress"),
    ("64:ff9b::/96", "NAT64"),
    ("64:ff9b:1::/48", "NAT64"),
    ("2002::/16", "6to4"),
    ("2001::/32", "Teredo"),
)
"""Network and what it is; no `dial` may lie in one, no `networks` entry may overlap one."""

# RFC 4291 section 2.5.5.1, but for :: (above) and ::1, which is a loopback address.
_COMPATIBLE: Final = tuple(IPv6Network("::/96").address_exclude(IPv6Network("::/127")))
_NEVER: Final[tuple[tuple[Network, str], ...]] = (
    *((ip_network(text), what) for text, what in NEVER),
    *((network, "an IPv4 address in IPv6 dress") for network in _COMPATIBLE),
)


def parse_network(value: object) -> Network:
    """The network that `10.1.0.0/16` names; ValueInvalid when it is not one, or overlaps one that is never dialled."""
    if not isinstance(value, str):
        raise ValueInvalid("a network is a text such as 10.1.0.0/16", 'write "10.1.0.0/16"')
    try:
        network = ip_network(value)
    except ValueError:
        try:
            loose = ip_network(value, strict=False)
        except ValueError:
            raise ValueInvalid("not a network", "write an address and a prefix length, such as 10.1.0.0/16") from None
        raise ValueInvalid("the address has bits behind the prefix", f"write {loose}") from None
    for never, what in _NEVER:
        if network.version == never.version and network.overlaps(never):
            raise ValueInvalid(
                f"the network contains {never}, {what}, which is never dialled",
                "name smaller networks that leave it out",
            )
    return network


def parse_dial(value: object) -> tuple[Address, int | None]:
    """The literal address, and the port if given, of `127.0.0.1:9443`, `[::1]:9443` or `10.1.2.3`."""
    if not isinstance(value, str):
        raise ValueInvalid("dial is a literal address, with or without a port", 'write "10.1.2.3:8443"')
    host, port = _split_port(value)
    try:
        address = ip_address(host)
    except ValueError:
        raise ValueInvalid(
            "dial takes a literal address, not a name",
            'write an address such as "10.1.2.3" or "[fd12::1]:8443", or leave dial out to resolve the host',
        ) from None
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise ValueInvalid("an address with a zone", "leave out the % and what follows")
    for never, what in _NEVER:
        if address.version == never.version and address in never:
            raise ValueInvalid(f"{address} is {what}, which is never dialled", "name another address")
    return address, port


def _split_port(value: str) -> tuple[str, int | None]:
    if value.startswith("["):
        host, bracket, rest = value[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueInvalid("brackets do not close around the address", 'write "[fd12::1]:8443"')
        text = rest[1:] if rest else None
    elif value.count(":") == 1:
        host, _, text = value.partition(":")
    else:
        host, text = value, None
    if text is None:
        return host, None
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise ValueInvalid("not a port", "write a number from 1 to 65535 behind the address")
    return host, int(text)
