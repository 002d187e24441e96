"""Which addresses may be dialled: one explicit table, because `ipaddress.is_global` differs by Python version and is
wrong for NAT64, IPv4-compatible, multicast and 6to4 forms.

Three classes. NEVER is not dialled whoever names it: there is no peer to have a connection to, or it is a cloud's
metadata service, which hands out credentials to whoever asks. PRIVATE is dialled where an operator has said so: a
`dial` address, or one of the connection's `networks`. The rest is public. An IPv6 address that carries an IPv4 one
(mapped, compatible, NAT64, 6to4, Teredo) is judged by what it carries too, and no class of it is ever better than its
carrier's.
"""

from collections.abc import Iterable
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class AddressClass(IntEnum):
    """How far an address may be dialled; the greater, the less."""

    PUBLIC = 0
    PRIVATE = 1
    NEVER = 2


class AddressForbidden(Exception):
    """The address may not be dialled. `reason` names the table's row, for operators."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"{address}: {reason}")
        self.address = address
        self.reason = reason


_N, _P = AddressClass.NEVER, AddressClass.PRIVATE

TABLE: Final[tuple[tuple[Network, AddressClass, str], ...]] = tuple(
    (ip_network(network), klass, reason)
    for network, klass, reason in (
        # Metadata services, before the ranges they lie in. AWS, GCP, Azure, Oracle, DigitalOcean; ECS; Alibaba; AWS
        # on IPv6; Oracle's iSCSI neighbour and Azure's wire server (168.63.129.16, a public address) as well.
        ("169.254.169.254/32", _N, "cloud metadata service"),
        ("169.254.170.2/32", _N, "cloud metadata service (ECS)"),
        ("169.254.170.23/32", _N, "cloud metadata service (EKS)"),
        ("100.100.100.200/32", _N, "cloud metadata service (Alibaba)"),
        ("168.63.129.16/32", _N, "cloud metadata service (Azure wire server)"),
        ("192.0.0.192/32", _N, "cloud metadata service (Oracle)"),
        ("fd00:ec2::254/128", _N, "cloud metadata service (AWS)"),
        ("fd00:ec2::23/128", _N, "cloud metadata service (EKS)"),
        ("fd20:ce::254/128", _N, "cloud metadata service (GCP)"),
        # RFC 6890 and the IANA IPv4 special-purpose registry
        ("0.0.0.0/8", _N, "this network (RFC 791 section 3.2)"),
        ("10.0.0.0/8", _P, "private (RFC 1918)"),
        ("100.64.0.0/10", _P, "carrier-grade NAT (RFC 6598)"),
        ("127.0.0.0/8", _P, "loopback (RFC 1122 section 3.2.1.3)"),
        ("169.254.0.0/16", _N, "link-local (RFC 3927)"),
        ("172.16.0.0/12", _P, "private (RFC 1918)"),
        ("192.0.0.0/24", _N, "IETF protocol assignments (RFC 6890)"),
        ("192.0.2.0/24", _P, "documentation (RFC 5737)"),
        ("192.31.196.0/24", _P, "AS112 (RFC 7535)"),
        ("192.52.193.0/24", _P, "AMT (RFC 7450)"),
        ("192.88.99.0/24", _N, "6to4 relay anycast (RFC 7526)"),
        ("192.168.0.0/16", _P, "private (RFC 1918)"),
        ("192.175.48.0/24", _P, "AS112 (RFC 7534)"),
        ("198.18.0.0/15", _P, "benchmarking (RFC 2544)"),
        ("198.51.100.0/24", _P, "documentation (RFC 5737)"),
        ("203.0.113.0/24", _P, "documentation (RFC 5737)"),
        ("224.0.0.0/4", _N, "multicast (RFC 5771)"),
        ("240.0.0.0/4", _N, "reserved and broadcast (RFC 1112 section 4, RFC 919)"),
        # The IANA IPv6 special-purpose registry; outside 2000::/3 nothing is global unicast (RFC 4291 section 2.4)
        ("::/128", _N, "unspecified (RFC 4291 section 2.5.2)"),
        ("::1/128", _P, "loopback (RFC 4291 section 2.5.3)"),
        ("::ffff:0:0/96", _N, "IPv4-mapped (RFC 4291 section 2.5.5.2)"),
        ("::/96", _N, "IPv4-compatible (RFC 4291 section 2.5.5.1)"),
        ("64:ff9b::/96", _P, "NAT64 (RFC 6052)"),
        # Where an address of it carries the IPv4 one depends on a prefix length that only the site knows (RFC 6052,
        # 2.2).
        ("64:ff9b:1::/48", _N, "local NAT64 (RFC 8215)"),
        ("100::/64", _N, "discard-only (RFC 6666)"),
        ("100:0:0:1::/64", _N, "dummy prefix (RFC 9780)"),
        ("2001::/32", _N, "Teredo (RFC 4380)"),
        ("2001:2::/48", _P, "benchmarking (RFC 5180)"),
        ("2001:db8::/32", _P, "documentation (RFC 3849)"),
        ("2001:10::/28", _N, "ORCHID (RFC 4843)"),
        ("2001:20::/28", _N, "ORCHIDv2 (RFC 7343)"),
        ("2001::/23", _N, "IETF protocol assignments (RFC 2928)"),
        ("2002::/16", _N, "6to4 (RFC 3056, RFC 7526)"),
        ("2620:4f:8000::/48", _P, "AS112 (RFC 7534)"),
        ("3fff::/20", _P, "documentation (RFC 9637)"),
        ("5f00::/16", _N, "segment routing SIDs (RFC 9602)"),
        ("fc00::/7", _P, "unique local (RFC 4193)"),
        ("fe80::/10", _N, "link-local (RFC 4291 section 2.5.6)"),
        ("fec0::/10", _P, "site-local (RFC 3879)"),
        ("ff00::/8", _N, "multicast (RFC 4291 section 2.7)"),
        ("2000::/3", AddressClass.PUBLIC, "global unicast (RFC 4291 section 2.4)"),
        ("::/0", _N, "outside global unicast (RFC 4291 section 2.4)"),
    )
)
"""In order: the first row that holds an address decides. IPv4 outside the table is public."""

_V4: Final = tuple(row for row in TABLE if row[0].version == 4)
_V6: Final = tuple(row for row in TABLE if row[0].version == 6)


def classify(address: Address) -> tuple[AddressClass, str]:
    """The address's own class, without what it may carry, and the row that says so."""
    rows = _V4 if address.version == 4 else _V6
    for network, klass, reason in rows:
        if address in network:
            return klass, reason
    return AddressClass.PUBLIC, "public"


def _carried(address: Address) -> tuple[IPv4Address, ...]:
    """The IPv4 address inside a NAT64 one; every other carrier is NEVER by itself."""
    if address in _NAT64:
        return (IPv4Address(int(address) & 0xFFFFFFFF),)
    return ()


_NAT64: Final = IPv6Network("64:ff9b::/96")


def vet_address(ip: str, *, networks: Iterable[Network] = (), named: bool = False) -> None:
    """The address may be dialled for this connection; otherwise raises AddressForbidden.

    `named`: an operator wrote this very address (`dial`), which admits a private one. `networks`: private networks
    that the connection's DNS answers may lie in. Neither admits an address of class NEVER.
    """
    try:
        address = ip_address(ip)
    except ValueError:
        raise AddressForbidden(ip, "not an address") from None
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise AddressForbidden(ip, "zone identifier (RFC 4007)")
    admitting = tuple(networks)
    for part in (address, *_carried(address)):
        klass, reason = classify(part)
        if klass is AddressClass.NEVER:
            raise AddressForbidden(ip, reason)
        if klass is AddressClass.PRIVATE and not named and not any(part in network for network in admitting):
            raise AddressForbidden(ip, reason)
