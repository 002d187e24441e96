"""The bundle is the policy: canonical, complete, and restored exactly or not at all."""

import datetime
import json
from pathlib import Path

import pytest
import rfc8785
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from credentials.presentation import Basic, Bearer, Header
from rules.policy.compile import PolicySet, canonical_json, compile_policy
from rules.policy.load import load_policy, parse_policy
from rules.policy.source import PolicyInvalid

TEXT = """\
exeat: 1
tenant: acme
timezone: Europe/Berlin
roles: {lead: [lea@acme.example]}
credentials: {ttl: 90s, max_ttl: 2h}
denied_keys: ["sha256:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"]
connections:
  a: {host: A.Example., secret: s/a, price: 1.500000 USD}
  b: {host: b.example, port: 8443, dial: "127.0.0.1:9443", secret: s/b, present: {basic: bob}, ca: ca.pem}
  c: {host: münchen.example, secret: s/c, present: {header: X-Api-Key, prefix: "Token "}, networks: [10.1.0.0/16]}
  d: {host: d.example, dial: "[fd12::1]"}
  f: {host: f.example, port: 6379, unsafe_port: true, extra_ca: ca.pem}
  e: {host: e.example, scheme: http, unsafe_plaintext: true, networks: ["fd12::/16"]}
accounts:
  agent:
    owners: {accountable: ana@acme.example, system: it@acme.example, risk: risk@acme.example}
    limits:
      concurrency: 3
      rate: [{connection: a, max: 3, per: second}]
      spend: [{meter: price, max: 2 USD, per: day}]
    rules:
      - {id: x, allow: {connection: "*", path: "/{a}/**"}}
      - {id: y, deny: "*"}
"""


def authority() -> tuple[bytes, bytes]:
    """A self-signed certificate and its key, both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(pem), private


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "acme.yaml").write_text(TEXT)
    (tmp_path / "ca.pem").write_bytes(b"a comment\n" + authority()[0])
    return tmp_path


def test_a_connection_is_compiled_as_it_is_written(folder: Path) -> None:
    tenant = compile_policy(load_policy(folder)).tenants["acme"]
    a, b, c, d, e, f = (tenant.connections[name] for name in "abcdef")
    assert (a.ca_pem, a.ca_added, b.ca_added, f.ca_added) == (None, False, False, True)
    assert f.ca_pem == b.ca_pem
    assert a.denied_keys == tenant.denied_keys == {"0a" * 32}
    assert (a.host, a.port, a.price_micros, a.currency) == ("a.example", 443, 1_500_000, "USD")
    assert a.binding is not None
    assert a.binding.presentation == Bearer()
    assert (a.binding.tenant, a.binding.connection, a.binding.host, a.binding.port) == ("acme", "a", "a.example", 443)
    assert b.binding is not None
    assert b.binding.presentation == Basic("bob")
    assert (b.port, b.dial) == (8443, ("127.0.0.1", 9443))
    assert b.ca_pem is not None
    assert b.ca_pem.startswith("-----BEGIN CERTIFICATE-----")
    assert c.host == "xn--mnchen-3ya.example"
    assert c.binding is not None
    assert c.binding.presentation == Header("X-Api-Key", "Token ")
    assert [str(network) for network in c.networks] == ["10.1.0.0/16"]
    assert (d.binding, d.dial, d.price_micros, d.currency) == (None, ("fd12::1", 443), 0, None)
    assert (e.scheme, e.port, e.unsafe_plaintext) == ("http", 80, True)
    assert tenant.connection_for("https", "a.example", 443) is a
    assert tenant.connection_for("https", "a.example", 444) is None
    assert tenant.timezone.key == "Europe/Berlin"
    assert tenant.roles == {"lead": ("lea@acme.example",)}
    account = tenant.accounts["agent"]
    assert (account.default_ttl_seconds, account.max_ttl_seconds) == (90, 7200)
    assert account.limits.rates[0].burst == 3, "burst is max when it is left out"


def test_a_bundle_restores_exactly_and_is_canonical(folder: Path) -> None:
    policy = compile_policy(load_policy(folder))
    restored = PolicySet.from_bundle(policy.bundle)
    assert restored == policy
    assert (
        restored.tenants["acme"].accounts["agent"].plan.standing
        == policy.tenants["acme"].accounts["agent"].plan.standing
    )
    assert policy.bundle == rfc8785.dumps(json.loads(policy.bundle))
    (folder / "ca.pem").unlink()
    assert PolicySet.from_bundle(policy.bundle) == policy, "the authority is in the bundle"


def test_the_digest_is_of_the_meaning_not_of_the_writing() -> None:
    text = TEXT.replace(", ca: ca.pem", "").replace(", extra_ca: ca.pem", "")
    same = "# a comment\n" + text.replace("1.500000 USD", "1.5 USD").replace("A.Example.", "a.example").replace(
        "90s", '"90s"'
    )
    other = text.replace("max: 3,", "max: 4,")
    digests = [compile_policy(parse_policy({"a.yaml": t.encode()})).digest for t in (text, same, other)]
    assert digests[0] == digests[1] != digests[2]


def test_another_authority_is_another_policy(folder: Path) -> None:
    first = compile_policy(load_policy(folder)).digest
    (folder / "ca.pem").write_bytes(authority()[0])
    assert compile_policy(load_policy(folder)).digest != first


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no PEM certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no PEM certificate"),
        (b"\x00" * 300_000, "larger than"),
        (authority()[1], "private key"),
    ],
)
def test_a_file_that_is_no_authority_is_refused(folder: Path, content: bytes, message: str) -> None:
    (folder / "ca.pem").write_bytes(content)
    with pytest.raises(PolicyInvalid) as caught:
        load_policy(folder)
    first, second = caught.value.errors  # `ca` of one connection, `extra_ca` of another
    assert message in first.message
    assert second.message == f"extra_{first.message}"
    assert first.line == 9


def test_an_authority_outside_the_folder_is_refused_also_through_a_link(folder: Path) -> None:
    policy = folder / "policy"
    policy.mkdir()
    (policy / "acme.yaml").write_text(TEXT)
    (policy / "ca.pem").symlink_to(folder / "ca.pem")
    with pytest.raises(PolicyInvalid, match="outside the policy's folder"):
        load_policy(policy)


def small() -> dict[str, object]:
    text = TEXT.replace(", ca: ca.pem", "").replace(", extra_ca: ca.pem", "")
    loaded: dict[str, object] = json.loads(compile_policy(parse_policy({"a.yaml": text.encode()})).bundle)
    return loaded


def changed(path: list[str | int], value: object) -> bytes:
    data = small()
    node: object = data
    for step in path[:-1]:
        node = node[step]  # type: ignore[index]
    node[path[-1]] = value  # type: ignore[index]
    return canonical_json(data)


@pytest.mark.parametrize(
    "bundle",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        b"\xff",
        b"1e5",
        canonical_json(small()) + b"\n",
        canonical_json(small()).replace(b'"bundle":1', b'"bundle":1,"bundle":1'),
        canonical_json(small()).replace(b'"bundle":1', b'"bundle":1.0'),
        json.dumps(small()).encode(),
        changed(["bundle"], 2),
        changed(["extra"], 1),
        changed(["tenants"], [small()["tenants"][0]] * 2),  # type: ignore[index]
        changed(["authorities"], {"acme": {"a": "PEM"}}),
        changed(["authorities"], {"acme": {}}),
        changed(["authorities"], {"acme": {"a": 1}}),
        changed(["tenants", 0, "connections", "b", "ca"], "ca.pem"),
        changed(["tenants", 0, "connections", "b", "port"], "8443"),
        changed(["tenants", 0, "connections", "d", "host"], "a.example"),
        changed(["tenants", 0, "accounts", "agent", "rules", 0, "allow", "connection"], "gone"),
        changed(["tenants", 0, "accounts", "agent", "rules", 0, "allow"], None),
    ],
)
def test_what_is_no_bundle_is_never_half_a_policy(bundle: bytes) -> None:
    with pytest.raises(PolicyInvalid):
        PolicySet.from_bundle(bundle)


def test_the_small_bundle_of_these_tests_is_valid() -> None:
    assert PolicySet.from_bundle(canonical_json(small())).tenants.keys() == {"acme"}
