"""A certificate that the operator brings, when its files hold what nobody expected."""

import base64
import datetime
import random
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from proxy.engine.operator_certificate import CertificateRefused, OperatorCertificate, load_certificate

NAME = "exeat.test"


def brought(folder: Path) -> tuple[Path, Path, bytes]:
    """Files of a good pair, and the certificate's DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain_path, key_path = folder / "chain.pem", folder / "key.pem"
    chain_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.touch(mode=0o600)
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )  # fmt: skip
    return chain_path, key_path, certificate.public_bytes(serialization.Encoding.DER)


def pem(der: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"


@pytest.mark.filterwarnings("ignore")
def test_whatever_lies_in_the_file_it_is_loaded_or_refused(tmp_path: Path) -> None:
    """A library reads a certificate's parts only when asked for them, and raises many things then."""
    chain, key, der = brought(tmp_path)
    dice = random.Random(1)
    refused = 0
    for _ in range(600):
        garbled = bytearray(der)
        for _ in range(dice.randrange(1, 3)):
            garbled[dice.randrange(len(der))] = dice.randrange(256)
        chain.write_bytes(pem(bytes(garbled)))
        try:
            load_certificate(chain, key, (NAME,))
        except CertificateRefused:
            refused += 1
    assert refused > 100


def test_a_replacement_that_cannot_be_read_leaves_the_old_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    chain, key, der = brought(tmp_path)
    own = OperatorCertificate(chain, key, (NAME,))
    before = own.context()
    curve = bytes.fromhex("06082a8648ce3d030107")
    assert curve in der
    chain.write_bytes(pem(der.replace(curve, curve[:-1] + b"\x7e")))  # a key on a curve that nobody knows
    own.look()
    assert own.context() is before
    assert "the old one stays" in caplog.text
