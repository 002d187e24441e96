"""Alert destinations of a policy: what is taken, what is refused with its place and cure, what a change tells."""

from pathlib import Path

import pytest

from credentials.secret import Secret
from rules.alerts.destination import AlertDestination
from rules.alerts.secrets import AlertSecretUnusable, check_secret, hook_address, signing_key
from rules.policy.compile import PolicySet, compile_policy
from rules.policy.diff import summarise
from rules.policy.load import load_policy, parse_policy
from rules.policy.source import PolicyInvalid
from tests.worlds.authority import Authority

POLICY = """\
exeat: 1
tenant: acme
alerts:
  ops: {ops}
accounts:
  agent:
    owners: {{accountable: ana@acme.example, system: it@acme.example, risk: risk@acme.example}}
"""
HOOK = '{webhook: "https://hooks.acme.example/exeat", secret: alerts/ops}'


def policy(ops: str) -> PolicySet:
    return compile_policy(parse_policy({"acme.yaml": POLICY.format(ops=ops).encode()}))


def ops(text: str) -> AlertDestination:
    return policy(text).tenants["acme"].alerts["ops"]


def test_a_webhook_with_two_keys() -> None:
    found = ops('{webhook: "https://Hooks.acme.example:443/exeat", secret: [alerts/ops, alerts/next]}')
    assert (found.kind, found.transport, found.host, found.port, found.path) == (
        "webhook", "https", "hooks.acme.example", 443, "/exeat",
    )  # fmt: skip
    assert found.secrets == ("alerts/ops", "alerts/next")
    assert found.described == ("webhook https://hooks.acme.example:443/exeat, signed with alerts/ops and alerts/next")


@pytest.mark.parametrize(
    ("url", "transport", "host", "port"),
    [
        ("udp://siem.acme.example", "udp", "siem.acme.example", 514),
        ("tcp://siem.acme.example", "tcp", "siem.acme.example", 601),
        ("tls://siem.acme.example", "tls", "siem.acme.example", 6514),
        ("tls://[2606:4700::1]:99", "tls", "2606:4700::1", 99),
    ],
)
def test_a_syslog_receiver(url: str, transport: str, host: str, port: int) -> None:
    found = ops(f'{{syslog: "{url}"}}')
    assert (found.transport, found.host, found.port, found.secrets) == (transport, host, port, ())


def test_a_slack_hook_has_no_address_in_the_policy() -> None:
    found = ops("{slack: alerts/slack}")
    assert (found.kind, found.host, found.secrets) == ("slack", "", ("alerts/slack",))


@pytest.mark.parametrize(
    ("written", "message", "fix"),
    [
        ("{}", "says nothing of where it is", "one of webhook, slack and syslog"),
        ("{slack: a/b, syslog: 'udp://h.example'}", "is slack and syslog at once", "one of webhook"),
        ("{webhook: 'https://h.example/x'}", "nothing signs", "exeat secret set alerts/ops"),
        ("{syslog: 'udp://h.example', secret: a}", "only webhooks are signed", "remove it"),
        ("{webhook: 'http://h.example/x', secret: a}", "http sends alerts readable", "use https"),
        ("{webhook: 'https://10.1.2.3/x', secret: a}", "10.1.2.3 is a private address", "networks: [10.1.2.3]"),
        ("{syslog: 'udp://127.0.0.1:514'}", "127.0.0.1 is a private address", "networks: [127.0.0.1]"),
        ("{webhook: 'https://u:p@h.example/x', secret: a}", "a user or a password", "leave it out"),
        ("{webhook: 'https://h.example/x?token=1', secret: a}", "a query", "up to its path"),
        ("{webhook: 'ftp://h.example/x', secret: a}", "not an address", "https://"),
        ("{webhook: 'tls://h.example', secret: a}", "not https or http", "https://"),
        ("{webhook: 'https://h.example:0/x', secret: a}", "not a port", "65535"),
        ("{syslog: 'tls://h.example/x'}", "a path where there is none", "tls://"),
        ("{syslog: 'udp://h.example', ca: ca.pem}", "udp has no certificate", "use tls"),
        ("{webhook: 'https://h.example/x', secret: []}", "not the names of secrets", "one name"),
        ("{webhook: 'https://h.example/x', secret: 'whsec_MfKQ9r8GKYqrTwjUPD8IL+/='}", "not the name", "secret set"),
        ("{slack: 'https://hooks.slack.com/services/T0/B0/very-secret'}", "not the name of a secret", "secret set"),
        ("{slack: a, dial: '10.1.2.3', networks: [10.0.0.0/8]}", "nothing beside dial", "remove networks or dial"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line_and_cure(written: str, message: str, fix: str) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        policy(written)
    found = [error for error in caught.value.errors if message in error.message]
    assert found, caught.value
    assert found[0].line == 4
    assert fix in found[0].fix
    assert "very-secret" not in str(caught.value)
    assert "MfKQ9r8" not in str(caught.value)


def test_an_authority_of_its_own_is_in_the_bundle(tmp_path: Path) -> None:
    pem = Authority().pem
    (tmp_path / "acme.yaml").write_text(POLICY.format(ops="{syslog: 'tls://h.example', ca: corp.pem}"))
    (tmp_path / "corp.pem").write_text(pem)
    compiled = compile_policy(load_policy(tmp_path))
    again = PolicySet.from_bundle(compiled.bundle)
    assert again.digest == compiled.digest
    assert again.tenants["acme"].alerts["ops"].ca_pem == pem
    (tmp_path / "corp.pem").unlink()
    with pytest.raises(PolicyInvalid, match="the file is missing"):
        load_policy(tmp_path)


def test_a_change_is_told() -> None:
    before = policy(HOOK)
    assert summarise(before, policy(HOOK)).lines == ()
    moved = summarise(before, policy(HOOK.replace("/exeat", "/other"))).lines
    assert moved == (
        "changes: acme: alerts to ops: webhook https://hooks.acme.example:443/other, signed with alerts/ops, was "
        "webhook https://hooks.acme.example:443/exeat, signed with alerts/ops",
    )
    dialled = summarise(before, policy(HOOK.replace("secret", "dial: '10.0.0.1', secret"))).lines
    assert dialled[0].endswith("reached or verified otherwise")


@pytest.mark.parametrize("value", ["short", "whsec_c2hvcnQ=", "whsec_not base64 not base64 not base64", "ü" * 40])
def test_what_is_no_signing_key_is_refused_without_its_value(value: str) -> None:
    with pytest.raises(AlertSecretUnusable) as caught:
        check_secret([ops(HOOK)], "alerts/ops", Secret(value))
    assert value not in str(caught.value)


def test_a_signing_key_with_and_without_its_prefix() -> None:
    assert signing_key(Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")) == signing_key(
        Secret("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    )


@pytest.mark.parametrize(
    "value", ["http://h.example/x", "https://h.example/x y", "https://h.example:0/x", "https://u@h.example/x", "T0/B0",
              "https://h.example/x#y"]
)  # fmt: skip
def test_what_is_no_hook_is_refused_without_its_value(value: str) -> None:
    with pytest.raises(AlertSecretUnusable) as caught:
        hook_address(Secret(value))
    assert value not in str(caught.value)


def test_a_hook_whose_address_is_the_secret() -> None:
    found = hook_address(Secret("https://hooks.slack.com/services/T0/B0/x?y=1"))
    assert (found.host, found.port, found.path) == ("hooks.slack.com", 443, "/services/T0/B0/x?y=1")
    assert "T0" not in repr(found)
