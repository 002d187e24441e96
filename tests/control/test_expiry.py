"""A certificate that is about to expire is told of, at each of a few days before, and once for each."""

from datetime import timedelta
from pathlib import Path

import pytest

from control.authorities import Authorities
from control.expiry import tell_of_expiry
from control.state import State
from proxy.engine.authority import Authority
from proxy.engine.operator_certificate import OperatorCertificate
from tests.worlds.authority import Authority as Foreign


def told(state: State) -> list[tuple[str, str, str]]:
    found = state.alerts.read.latest(100)
    return [(one.kind, str(one.severity), one.detail["which"]) for one, _ in found]


@pytest.mark.parametrize(
    ("days", "severity"), [(31, None), (29, "warning"), (9, "warning"), (2.9, "critical"), (0.5, "critical")]
)
def test_the_authority(tmp_path: Path, days: float, severity: str | None) -> None:
    with State.open(tmp_path / "state", create=True) as state:
        Authority.create(days=days).save_new(state.keys / "ca.pem")
        authorities = Authorities.open(state.keys)
        for _ in range(3):
            tell_of_expiry(authorities, None, state)
        assert told(state) == ([] if severity is None else [("certificate.expires", severity, "authority")])


def test_another_one_is_told_of_by_itself_and_each_of_the_days(tmp_path: Path) -> None:
    with State.open(tmp_path / "state", create=True) as state:
        for days in (20, 2):
            (state.keys / "ca.pem").unlink(missing_ok=True)
            (state.keys / "ca-cert.pem").unlink(missing_ok=True)
            Authority.create(days=days).save_new(state.keys / "ca.pem")
            tell_of_expiry(Authorities.open(state.keys), None, state)
        assert [severity for _, severity, _ in told(state)] == ["critical", "warning"]


def test_the_operators_own_from_ten_days_on(tmp_path: Path) -> None:
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    key.touch(mode=0o600)
    with State.open(tmp_path / "state", create=True) as state:
        authorities = Authorities.open(state.keys)
        for days in (12, 8):
            leaf = Foreign().issue("gate.example", not_after=timedelta(days=days))
            chain.write_bytes(leaf.chain_pem)
            key.write_bytes(leaf.key_pem)
            tell_of_expiry(authorities, OperatorCertificate(chain, key, ("gate.example",)), state)
        assert told(state) == [("certificate.expires", "warning", "listeners' certificate")]
