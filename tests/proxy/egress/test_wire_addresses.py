"""Every row of the address table, its edges, and what may admit an address."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.egress.addresses import TABLE, AddressClass, AddressForbidden, classify, vet_address

PUBLIC = [
    "1.1.1.1", "8.8.8.8", "93.184.216.34", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0",
    "126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0",
    "192.167.255.255",
    "192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255", "168.63.129.15",
    "2606:4700:4700::1111", "2a00:1450:4001:82a::200e", "2001:4860:4860::8888", "2003::1", "2620:4e::1",
]  # fmt: skip
PRIVATE = [
    "10.0.0.0", "10.255.255.255", "127.0.0.1", "127.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.1",
    "192.168.255.255", "100.64.0.0", "100.127.255.255", "192.0.2.1", "198.51.100.7", "203.0.113.9", "198.18.0.1",
    "198.19.255.255", "::1", "fc00::", "fd12:3456::1", "fdff:ffff::1", "fec0::1", "2001:db8::1", "3fff::1", "2001:2::1",
    "64:ff9b::808:808", "64:ff9b::a00:1", "192.31.196.1", "192.175.48.1", "192.52.193.1",
    "2620:4f:8000::1",
]  # fmt: skip
NEVER = [
    "0.0.0.0", "0.1.2.3", "169.254.0.1", "169.254.169.254", "169.254.170.2", "169.254.170.23", "100.100.100.200",
    "168.63.129.16", "192.0.0.192", "192.0.0.1", "192.0.0.8", "192.88.99.1", "224.0.0.1", "239.255.255.255",
    "240.0.0.1", "255.255.255.255", "::", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "::8.8.8.8", "::2",
    "fe80::1",
    "febf::1", "ff02::1", "ff0e::1", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "2001::1", "2001:0:4136:e378::1",
    "2002:7f00:1::", "2002:808:808::1", "2001:10::1", "2001:20::1", "2001:1::1", "100::1", "100:0:0:1::1", "5f00::1",
    "4000::1", "1::1", "e000::1", "64:ff9b:2::1", "64:ff9b::169.254.169.254", "64:ff9b::0.0.0.0", "64:ff9b::224.0.0.1",
    "64:ff9b:1::169.254.169.254", "64:ff9b:1:a9fe:a9:fe00::", "64:ff9b:1::1.1.1.1",
]  # fmt: skip
NO_ADDRESS = [
    "", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "127.0.0.1.", " 127.0.0.1", "127.0.0.1\n",
    "[::1]", "::1%lo", "fe80::1%eth0", "2606:4700::1111%1", "1.2.3.4/32", "①②⑦.0.0.1", "256.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("ip", PUBLIC)
def test_public_addresses_are_dialled(ip: str) -> None:
    assert vet_address(ip) is None
    assert classify(ip_address(ip))[0] is AddressClass.PUBLIC


@pytest.mark.parametrize("ip", PRIVATE)
def test_private_addresses_are_dialled_only_where_an_operator_said_so(ip: str) -> None:
    with pytest.raises(AddressForbidden) as raised:
        vet_address(ip)
    assert raised.value.reason
    vet_address(ip, named=True)
    with pytest.raises(AddressForbidden):
        vet_address(ip, networks=(ip_network("10.77.0.0/16"), ip_network("fd77::/16")))
    everything = (ip_network("0.0.0.0/0"), ip_network("::/0"))
    vet_address(ip, networks=everything)


@pytest.mark.parametrize("ip", NEVER + NO_ADDRESS)
def test_nobody_can_admit_these(ip: str) -> None:
    everything = (ip_network("0.0.0.0/0"), ip_network("::/0"))
    with pytest.raises(AddressForbidden):
        vet_address(ip, networks=everything, named=True)


def test_a_translated_private_address_has_to_be_admitted_itself() -> None:
    nat64 = ip_network("64:ff9b::/96")
    vet_address("64:ff9b::8.8.8.8", networks=(nat64,))
    with pytest.raises(AddressForbidden):
        vet_address("64:ff9b::10.0.0.1", networks=(nat64,))
    vet_address("64:ff9b::10.0.0.1", networks=(nat64, ip_network("10.0.0.0/8")))


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row[0]} {row[2]}")
def test_each_row_decides_its_first_and_last_address_or_an_earlier_row_does(row: tuple) -> None:  # type: ignore[type-arg]
    network, klass, reason = row
    decided = [classify(edge) for edge in (network.network_address, network.broadcast_address)]
    earlier = [other for other in TABLE[: TABLE.index(row)] if other[0].version == network.version]
    for edge, got in zip((network.network_address, network.broadcast_address), decided, strict=True):
        if not any(edge in other[0] for other in earlier):
            assert got == (klass, reason)


@given(bits=st.integers(0, 2**128 - 1))
def test_no_ipv6_address_outside_global_unicast_is_public(bits: int) -> None:
    address = IPv6Address(bits)
    if classify(address)[0] is AddressClass.PUBLIC:
        assert address in ip_network("2000::/3")
        assert not address.is_multicast
        assert not address.is_private


@given(bits=st.integers(0, 2**32 - 1))
def test_a_public_ipv4_address_is_one_for_python_too(bits: int) -> None:
    """The other direction does not hold: 168.63.129.16 and others are global and still refused."""
    address = IPv4Address(bits)
    if classify(address)[0] is AddressClass.PUBLIC:
        assert address.is_global
