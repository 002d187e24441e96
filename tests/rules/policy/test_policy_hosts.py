"""Hosts, addresses and ports of a policy: one reading of each, and none that the egress would not dial."""

import pytest

from proxy.egress.addresses import TABLE, AddressClass
from rules.policy.addresses import parse_dial
from rules.policy.hosts import normalise_host
from rules.policy.invalid import ValueInvalid
from rules.policy.load import parse_policy
from rules.policy.ports import NOT_HTTP
from rules.policy.source import PolicyInvalid

POLICY = "exeat: 1\ntenant: acme\nconnections:\n  a: {{host: {host}, {rest}}}\n"


@pytest.mark.parametrize(
    "host",
    [
        "①②⑦.0.0.1",
        "127。0。0。1",
        "127．0．0．1",
        "１２７.0.0.1",
        "127.0.0.١",
        "2130706433",
        "0x7f.1",
        "0X7F000001",
        "017700000001",
        "127.1",
        "127.0.0.1.",
        "127.0.0.01",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[64:ff9b::7f00:1]",
        "[::127.0.0.1]",
        "[fe80::1%eth0]",
        "169.254.169.254",
        "100.100.100.200",
        "a.0x1",
        "a..b",
        "a\\@b",
        "a\x00b",
        "u@a.example",
        "*.example",
        "ＬＯＣＡＬＨＯＳＴ",
        "exa\u00admple.com",
        "xn--a",
        "xn--127.0.0.1-",
    ],
)
def test_a_host_that_some_reader_takes_for_an_address(host: str) -> None:
    with pytest.raises(ValueInvalid):
        normalise_host(host)


def test_what_the_egress_never_dials_no_policy_can_name() -> None:
    """Told when the policy is applied, not when the first call fails."""
    accepted: list[str] = []
    for network, klass, reason in TABLE:
        if klass is not AddressClass.NEVER or network.prefixlen == 0:
            continue
        for address in (network[0], network[-1]):
            try:
                parse_dial(f"[{address}]" if address.version == 6 else str(address))
            except ValueInvalid:
                continue
            accepted.append(f"{address} ({reason})")
    assert accepted == []


@pytest.mark.parametrize("port", sorted(NOT_HTTP))
def test_a_port_of_another_protocol_needs_a_word(port: int) -> None:
    for rest in (f"port: {port}", f'dial: "10.0.0.1:{port}"'):
        with pytest.raises(PolicyInvalid, match="unsafe_port"):
            parse_policy({"a.yaml": POLICY.format(host="a.example", rest=rest).encode()})
        parse_policy({"a.yaml": POLICY.format(host="a.example", rest=f"{rest}, unsafe_port: true").encode()})


@pytest.mark.parametrize("port", [80, 443, 8080, 8443, 3000, 5000, 8000, 9000, 9200])
def test_the_usual_ports_need_none(port: int) -> None:
    assert port not in NOT_HTTP
